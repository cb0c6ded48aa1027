{{/* What a daemon needs to find others, and be found, in Consul. All take root and role, and give nothing where it is not used. */}}

{{- define "millrace.consulVariables" -}}
{{- $consul := .root.Values.consul | default dict -}}
{{- if and $consul.cluster $consul.tokenSecret }}
- name: CONSUL_HTTP_TOKEN_FILE
  value: /etc/millrace/consul/token
{{- end -}}
{{- if and $consul.cluster $consul.caSecret }}
- name: CONSUL_CACERT
  value: /etc/millrace/consul-ca/ca.crt
{{- end -}}
{{- end -}}

{{- define "millrace.consulMounts" -}}
{{- $consul := .root.Values.consul | default dict -}}
{{- if and $consul.cluster $consul.tokenSecret }}
- name: consul
  mountPath: /etc/millrace/consul
  readOnly: true
{{- end -}}
{{- if and $consul.cluster $consul.caSecret }}
- name: consul-ca
  mountPath: /etc/millrace/consul-ca
  readOnly: true
{{- end -}}
{{- if and $consul.cluster (eq .role "copier") }}
- name: peers
  mountPath: /var/lib/millrace/copier
{{- end -}}
{{- end -}}

{{- define "millrace.consulVolumes" -}}
{{- $consul := .root.Values.consul | default dict -}}
{{- if and $consul.cluster $consul.tokenSecret }}
- name: consul
  secret:
    secretName: {{ $consul.tokenSecret }}
    defaultMode: 0400
    items:
      - key: {{ .role }}
        path: token
{{- end -}}
{{- if and $consul.cluster $consul.caSecret }}
- name: consul-ca
  secret:
    secretName: {{ $consul.caSecret }}
    defaultMode: 0400
    items:
      - key: ca.crt
        path: ca.crt
{{- end -}}
{{- if and $consul.cluster (eq .role "copier") }}
# The peers that were known last, for a start while Consul is away.
- name: peers
  emptyDir:
    sizeLimit: 1Mi
{{- end -}}
{{- end -}}
