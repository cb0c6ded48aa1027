{{/* Where a daemon's certificate comes from: always ca.pem, ROLE.pem and ROLE-key.pem in /etc/millrace/tls. */}}

{{/* The volume of that directory. Takes root and role. */}}
{{- define "millrace.tlsVolumes" -}}
{{- if eq .root.Values.tls.source "spiffe" -}}
# Filled by spiffe-helper.
- name: tls
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
- name: spiffe
  csi:
    driver: {{ .root.Values.tls.spiffe.driver }}
    readOnly: true
{{- else -}}
- name: tls
  secret:
    secretName: {{ include "millrace.tlsSecret" . }}
    defaultMode: 0400
    items:
      - key: ca.crt
        path: ca.pem
      - key: tls.crt
        path: {{ .role }}.pem
      - key: tls.key
        path: {{ .role }}-key.pem
{{- end -}}
{{- end -}}

{{- define "millrace.tlsSecret" -}}
{{- if eq .root.Values.tls.source "secret" -}}
{{- get .root.Values.tls.secrets (include "millrace.key" .role) -}}
{{- else -}}
{{- include "millrace.fullname" .root }}-{{ .role }}-tls
{{- end -}}
{{- end -}}

{{/* The configuration of spiffe-helper. Takes root and role. */}}
{{- define "millrace.spiffeHelperConfig" -}}
agent_address = "/spiffe-workload-api/{{ .root.Values.tls.spiffe.socket }}"
cert_dir = "/etc/millrace/tls"
svid_file_name = "{{ .role }}.pem"
svid_key_file_name = "{{ .role }}-key.pem"
svid_bundle_file_name = "ca.pem"
health_checks {
  listener_enabled = true
  bind_port = {{ include "millrace.spiffeHealthPort" . }}
  liveness_path = "/live"
  readiness_path = "/ready"
}
{{- end -}}

{{- define "millrace.spiffeHealthPort" -}}
{{- add .root.Values.tls.spiffe.healthPort (get (dict "copier" 0 "interceptor" 1 "router-agent" 2) .role) -}}
{{- end -}}

{{/* The containers of spiffe-helper. Takes root, role and stays: whether one renews for as long as the pod lives. */}}
{{- define "millrace.spiffeHelpers" -}}
# Before the daemon: it does not start without its certificate.
- name: first-certificate
  args: ["-config", "/etc/millrace/config/helper.conf", "-daemon-mode=false"]
  {{- include "millrace.spiffeHelper" . | nindent 2 }}
{{- if .stays }}
# Beside it: the daemon reads what is renewed.
- name: certificates
  args: ["-config", "/etc/millrace/config/helper.conf", "-daemon-mode=true"]
  restartPolicy: Always
  {{- include "millrace.spiffeHelper" . | nindent 2 }}
  livenessProbe:
    httpGet:
      path: /live
      port: {{ include "millrace.spiffeHealthPort" . }}
    periodSeconds: 30
    failureThreshold: 4
  readinessProbe:
    httpGet:
      path: /ready
      port: {{ include "millrace.spiffeHealthPort" . }}
    periodSeconds: 10
{{- end }}
{{- end -}}

{{- define "millrace.spiffeHelper" -}}
image: {{ include "millrace.image" (dict "image" .root.Values.tls.spiffe.helperImage "tag" "") }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- include "millrace.containerSecurity" (dict "root" .root) | nindent 2 }}
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {cpu: 200m, memory: 64Mi}
volumeMounts:
  - name: config
    mountPath: /etc/millrace/config
    readOnly: true
  - name: tls
    mountPath: /etc/millrace/tls
  - name: spiffe
    mountPath: /spiffe-workload-api
    readOnly: true
{{- end -}}
