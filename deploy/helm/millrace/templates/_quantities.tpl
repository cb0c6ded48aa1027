{{/* Kubernetes quantities as numbers: apimachinery/pkg/api/resource, without exponents. */}}

{{/* A CPU quantity in thousandths of a core. */}}
{{- define "millrace.millicores" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}
{{- trimSuffix "m" $text | float64 | floor | int64 -}}
{{- else -}}
{{- mulf (float64 $text) 1000 | floor | int64 -}}
{{- end -}}
{{- end -}}

{{/* A memory quantity in bytes. */}}
{{- define "millrace.bytes" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf $number (get $units (regexFind "[A-Za-z]*$" $text)) | floor | int64 -}}
{{- end -}}
