{{/* Live services that are in pods: which namespaces copiers must be allowed to look into. */}}

{{/* The services of copier.config, as JSON: they are a list, or a text with commas. */}}
{{- define "millrace.services" -}}
{{- $services := get .Values.copier.config "services" | default list -}}
{{- if kindIs "string" $services -}}
{{- $services = splitList "," $services -}}
{{- end -}}
{{- $all := list -}}
{{- range $entry := $services -}}
{{- range $service := splitList "," ($entry | toString) -}}
{{- $all = append $all (trim $service) -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{/* The namespaces of those that are in pods, each once, as JSON. */}}
{{- define "millrace.podNamespaces" -}}
{{- $namespaces := list -}}
{{- range $service := include "millrace.services" . | fromJsonArray -}}
{{- if regexMatch "^(service|pods)/" $service -}}
{{- $namespaces = append $namespaces (index (splitList "/" $service) 1) -}}
{{- end -}}
{{- end -}}
{{- toJson ($namespaces | uniq | sortAlpha) -}}
{{- end -}}

{{/* The value copier.kubernetes.enabled, "true" or nothing: values that are used again may be of a chart without it. */}}
{{- define "millrace.kubernetes" -}}
{{- if get (.Values.copier.kubernetes | default dict) "enabled" }}true{{ end -}}
{{- end -}}

{{/* Whether copiers ask the API of Kubernetes: "true" or nothing. Takes root and role. */}}
{{- define "millrace.asksApi" -}}
{{- if and (eq .role "copier") (include "millrace.kubernetes" .root) }}true{{ end -}}
{{- end -}}
