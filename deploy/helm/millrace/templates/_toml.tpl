{{/* TOML of a map whose keys are option names. Numbers of YAML may be floats: 512 must not become 512.0. */}}
{{- define "millrace.toml" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "millrace.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "millrace.tomlValue" -}}
{{- if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}{{- $items = append $items (include "millrace.tomlValue" .) -}}{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "string" . -}}
{{- toRawJson . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}
