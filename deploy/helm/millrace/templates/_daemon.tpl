{{/* All of one daemon: service account, configuration, DaemonSet. The kill switch takes away the last of these, so that
copiers are still checked before they copy again. Takes root and role. */}}
{{- define "millrace.daemon" -}}
{{- $key := include "millrace.key" .role -}}
{{- $values := get .root.Values $key -}}
{{- $name := printf "%s-%s" (include "millrace.fullname" .root) .role -}}
{{- $labels := include "millrace.labels" . -}}
{{- $files := include "millrace.files" . -}}
{{- $spiffe := and (not .root.Values.insecure) (eq .root.Values.tls.source "spiffe") -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
data:
  {{- $files | nindent 2 }}
{{- if not (and (eq .role "copier") .root.Values.killSwitch) }}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "millrace.selector" . | nindent 6 }}
  # A node's pod ends before the next one begins, and one node follows the other: ports are the node's, and two copiers
  # would copy everything twice. A pod that does not become ready ends the roll-out there.
  updateStrategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 0
      maxUnavailable: 1
  minReadySeconds: 10
  template:
    metadata:
      # Without the chart's version: a new chart that changes nothing for a pod does not restart it.
      labels:
        {{- include "millrace.selector" . | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .role }}
        # Another configuration is rolled out.
        checksum/config: {{ sha256sum $files }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "millrace.podSettings" . | nindent 6 }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      # SIGTERM drains, so that there is no preStop: it would only take from this time.
      terminationGracePeriodSeconds: {{ include "millrace.termination" . }}
      {{- if $spiffe }}
      initContainers:
        {{- include "millrace.spiffeHelpers" (dict "root" .root "role" .role "stays" true) | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .role }}
          command: ["/usr/bin/millrace-{{ .role }}"]
          args: ["--config", "/etc/millrace/config/{{ .role }}.toml"]
          {{- include "millrace.container" . | nindent 10 }}
          ports:
            # Named here, the scheduler puts no second pod with these ports on a node.
            - name: admin
              containerPort: {{ $values.adminPort }}
              hostPort: {{ $values.adminPort }}
              protocol: TCP
            {{- if ne .role "copier" }}
            - name: copiers
              containerPort: {{ include "millrace.port" . }}
              hostPort: {{ include "millrace.port" . }}
              protocol: TCP
            {{- end }}
          startupProbe:
            {{- include "millrace.probe" (dict "root" .root "path" "/healthz") | nindent 12 }}
            periodSeconds: 2
            failureThreshold: 60
          # Patient: a node that is short of CPU time is no reason to end sessions.
          livenessProbe:
            {{- include "millrace.probe" (dict "root" .root "path" "/healthz") | nindent 12 }}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            {{- include "millrace.probe" (dict "root" .root "path" "/readyz") | nindent 12 }}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
      volumes:
        {{- include "millrace.volumes" . | nindent 8 }}
{{- end }}
{{- end -}}

{{/* The files in /etc/millrace/config, as data of a ConfigMap. Takes root and role. */}}
{{- define "millrace.files" -}}
{{ .role }}.toml: |
  {{- include "millrace.config" . | nindent 2 }}
{{- if and (not .root.Values.insecure) (eq .root.Values.tls.source "spiffe") }}
helper.conf: |
  {{- include "millrace.spiffeHelperConfig" . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A probe at the admin port: on the loopback address the kubelet reaches it, too, as the pod has the node's network. */}}
{{- define "millrace.probe" -}}
httpGet:
  {{- if eq .root.Values.adminListen "loopback" }}
  host: 127.0.0.1
  {{- end }}
  path: {{ .path }}
  port: admin
{{- end -}}

{{/* The port at which copiers reach a daemon. Takes root and role. */}}
{{- define "millrace.port" -}}
{{- $values := get .root.Values (include "millrace.key" .role) -}}
{{- get $values.config "port" | default (ternary 36524 36526 (eq .role "interceptor")) | int -}}
{{- end -}}

{{/* How long a pod may take to end: a copier its --grace, and time for its report. Takes root and role. */}}
{{- define "millrace.termination" -}}
{{- if eq .role "copier" -}}
{{- $config := .root.Values.copier.config -}}
{{- add 15 (ternary (get $config "grace") 30 (hasKey $config "grace") | int) -}}
{{- else -}}
30
{{- end -}}
{{- end -}}
