{{/* The configuration file of a daemon: what follows from the pod, then what the operator wrote. Takes root and role. */}}
{{- define "millrace.config" -}}
{{- $key := include "millrace.key" .role -}}
{{- $values := get .root.Values $key -}}
{{- $own := dict -}}
{{- if eq .root.Values.adminListen "loopback" -}}
{{- $_ := set $own "admin" (printf "127.0.0.1:%d" (int $values.adminPort)) -}}
{{- end -}}
{{- if .root.Values.insecure -}}
{{- $_ := set $own "insecure" true -}}
{{- else -}}
{{- $_ := set $own "ca" "/etc/millrace/tls/ca.pem" -}}
{{- $_ := set $own "cert" (printf "/etc/millrace/tls/%s.pem" .role) -}}
{{- $_ := set $own "key" (printf "/etc/millrace/tls/%s-key.pem" .role) -}}
{{- end -}}
{{- with .root.Values.consul -}}
{{- if .cluster -}}
{{- $_ := set $own "cluster" .cluster -}}
{{- $_ := set $own "consul" .address -}}
{{- end -}}
{{- end -}}
{{- if and (eq .role "router-agent") (not (hasKey $values.config "keep-ports")) -}}
{{/* The agent's own list, and what a node of Kubernetes answers at: the API server and the kubelet. */ -}}
{{- $_ := set $own "keep-ports" (list 22 36524 6443 10250) -}}
{{- end -}}
{{- $limits := include "millrace.limits" . | fromYaml -}}
{{- range keys $values.config -}}{{- $_ := unset $limits . -}}{{- end -}}
# From the chart: what follows from being a pod.
{{- include "millrace.toml" $own }}
{{- with $limits }}
# From the limits of the container.
{{- include "millrace.toml" . }}
{{- end }}
{{- with $values.config }}
# From {{ $key }}.config of the values.
{{- include "millrace.toml" . }}
{{- end }}
{{- end -}}

{{/* Options that follow from the limits of the container. Takes root and role. */}}
{{- define "millrace.limits" -}}
{{- $values := get .root.Values (include "millrace.key" .role) -}}
{{- $bytes := include "millrace.bytes" $values.resources.limits.memory | float64 -}}
{{- if eq .role "copier" -}}
{{/* The rest is for what is not captured: threads, connections, what the allocator keeps. */ -}}
memory: {{ divf (mulf $bytes 0.75) 1048576 | floor | int64 }}
max-cpu: {{ mulf (include "millrace.millicores" $values.resources.limits.cpu | float64) 0.09 | floor | int64 }}
{{- else if eq .role "interceptor" -}}
{{/* A flow takes up to 200 bytes; beside the flows there are the capture buffers and 64 MiB. */ -}}
{{- $buffers := include "millrace.interceptorBuffers" $values | float64 -}}
{{- $flows := divf (mulf (subf $bytes $buffers 67108864) 0.75) 200 | floor | int64 -}}
max-flows: {{ max 1000 (min 2000000 $flows) }}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* Bytes of an interceptor's capture buffers. Takes its values. */}}
{{- define "millrace.interceptorBuffers" -}}
{{- $devices := get .config "devices" | default "millrace0" -}}
{{- $devices = ternary $devices (splitList "," (toString $devices)) (kindIs "slice" $devices) -}}
{{- mulf (get .config "buffer" | default 16 | float64) (len $devices) 1048576 | int64 -}}
{{- end -}}
