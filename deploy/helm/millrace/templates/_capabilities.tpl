{{/*
What a daemon may do, as a list for a container that drops everything else. Takes root and role.

Daemons run as root with these capabilities alone: Kubernetes gives capabilities to no other user (there is no ambient set,
and without privilege escalation the kernel ignores those of a file). Such a root may not read what is another user's,
change users, load modules or mount. Once a daemon has opened what it needs, it gives up more: docs/security.md.
*/}}
{{- define "millrace.capabilities" -}}
{{- $config := (get .root.Values (include "millrace.key" .role)).config -}}
{{- if eq .role "copier" -}}
# Packet sockets: to capture what clients send, and to send copies.
- NET_RAW
# Buffers beyond net.core.rmem_max and wmem_max; given up once they are open.
- NET_ADMIN
{{- if lt (get $config "capture-nice" | default 0 | int) 0 }}
# A scheduling priority above others, as capture-nice wants it; given up once it is set.
- SYS_NICE
{{- end }}
{{- else if eq .role "interceptor" -}}
# Packet sockets: to see the target's answers.
- NET_RAW
{{- if eq (get $config "mode" | default "") "nfqueue" }}
# The queue of the firewall.
- NET_ADMIN
{{- end }}
{{- else -}}
# Routes, policy rules, the sink, the firewall's table, and the end of copied connections.
- NET_ADMIN
# iptables asks for it, and the agent keeps it for that.
- NET_RAW
{{- end -}}
{{- end -}}
