{{/* The nodes on which a role is checked, as a list; an empty name stands for one that the scheduler chooses. Takes root
and role. */}}
{{- define "millrace.testNodes" -}}
{{- $key := include "millrace.key" .role -}}
{{- $values := get .root.Values $key -}}
{{- $nodes := get .root.Values.tests.nodes $key | default list -}}
{{- if and (empty $nodes) .root.Values.tests.lookup (or $values.nodeSelector $values.allNodes) -}}
{{- range $node := (lookup "v1" "Node" "" "").items -}}
{{- $labels := $node.metadata.labels -}}
{{- $matches := true -}}
{{- range $label, $value := $values.nodeSelector -}}
{{- if ne (get $labels $label | toString) (toString $value) -}}{{- $matches = false -}}{{- end -}}
{{- end -}}
{{- if $matches -}}{{- $nodes = append $nodes $node.metadata.name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml ($nodes | default (list "")) -}}
{{- end -}}
