{{/* What pods of a DaemonSet and of a test have in common. All take root and role. */}}

{{/* The pod's own settings. */}}
{{- define "millrace.podSettings" -}}
{{- $values := get .root.Values (include "millrace.key" .role) -}}
serviceAccountName: {{ include "millrace.fullname" .root }}-{{ .role }}
{{- if include "millrace.asksApi" . }}
# To ask which pods of the node the live services are in, and nothing else.
automountServiceAccountToken: true
{{- else }}
# This daemon does not speak to the API of Kubernetes.
automountServiceAccountToken: false
{{- end }}
# A Service called millrace-copier would set MILLRACE_COPIER_PORT, which is an option.
enableServiceLinks: false
# The daemons work on the node's own network.
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* The security of a container; takes also capabilities (a list as YAML, or nothing) and seLinuxOptions. */}}
{{- define "millrace.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: false
runAsUser: 0
runAsGroup: 0
capabilities:
  drop: [ALL]
  {{- with .capabilities }}
  add:
    {{- . | nindent 4 }}
  {{- end }}
seccompProfile:
  type: RuntimeDefault
{{- if .root.Values.requireAppArmor }}
appArmorProfile:
  type: RuntimeDefault
{{- end }}
{{- with .seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The image and rights of a daemon's container, and what it finds there. */}}
{{- define "millrace.container" -}}
{{- $values := get .root.Values (include "millrace.key" .role) -}}
image: {{ include "millrace.image" (dict "image" .root.Values.image "tag" .root.Chart.AppVersion) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
# The last line of the log says why a daemon has ended.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- $rights := dict "root" .root "capabilities" (include "millrace.capabilities" .) "seLinuxOptions" $values.seLinuxOptions }}
  {{- include "millrace.containerSecurity" $rights | nindent 2 }}
{{- $listens := ternary "" (get $values.config "bind" | default "") (eq .role "copier") }}
{{- $bindsNode := and .root.Values.insecure (ne .role "copier") (empty $listens) }}
{{- $asks := include "millrace.asksApi" . }}
{{- $consul := include "millrace.consulVariables" . }}
{{- if or (ne .root.Values.adminListen "loopback") $bindsNode $asks $consul }}
{{- $variable := printf "MILLRACE_%s" (.role | upper | replace "-" "_") }}
env:
  {{- with $consul }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if $asks }}
  - name: {{ $variable }}_NODE
    valueFrom:
      fieldRef:
        fieldPath: spec.nodeName
  {{- end }}
  {{- if or (ne .root.Values.adminListen "loopback") $bindsNode }}
  - name: HOST_IP
    valueFrom:
      fieldRef:
        fieldPath: status.hostIP
  {{- end }}
  {{- if eq .root.Values.adminListen "node" }}
  - name: {{ $variable }}_ADMIN
    value: $(HOST_IP):{{ $values.adminPort }}
  {{- else if eq .root.Values.adminListen "node-ipv6" }}
  - name: {{ $variable }}_ADMIN
    value: "[$(HOST_IP)]:{{ $values.adminPort }}"
  {{- end }}
  {{- if $bindsNode }}
  # Without TLS a daemon listens for copiers on this address alone, and not on all.
  - name: {{ $variable }}_BIND
    value: $(HOST_IP)
  {{- end }}
{{- end }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/millrace/config
    readOnly: true
  {{- if not .root.Values.insecure }}
  - name: tls
    mountPath: /etc/millrace/tls
    readOnly: true
  {{- end }}
  {{- if ne .role "interceptor" }}
  - name: run
    mountPath: /run/millrace
  {{- end }}
  {{- with include "millrace.consulMounts" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if and (eq .role "router-agent") (eq (get $values.config "mode" | default "") "nfqueue") }}
  - name: xtables-lock
    mountPath: /run/xtables.lock
  {{- end }}
{{- end -}}

{{/* The volumes of a pod. */}}
{{- define "millrace.volumes" -}}
{{- $values := get .root.Values (include "millrace.key" .role) -}}
- name: config
  configMap:
    name: {{ include "millrace.fullname" .root }}-{{ .role }}
{{- if not .root.Values.insecure }}
{{ include "millrace.tlsVolumes" . }}
{{- end }}
{{- with include "millrace.consulVolumes" . }}
{{ . }}
{{- end }}
{{- if eq .role "copier" }}
# The socket of millrace-copier ctl.
- name: run
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- else if eq .role "router-agent" }}
# What was diverted must be known to the next pod, as the routes stay when this one ends.
- name: run
  hostPath:
    path: {{ $values.stateDir }}
    type: DirectoryOrCreate
{{- if eq (get $values.config "mode" | default "") "nfqueue" }}
# iptables of the node and of this pod take turns.
- name: xtables-lock
  hostPath:
    path: /run/xtables.lock
    type: FileOrCreate
{{- end }}
{{- end }}
{{- end -}}
