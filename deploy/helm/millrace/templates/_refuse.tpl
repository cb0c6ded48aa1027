{{/* Values that contradict each other, or would hurt. Each message says what to change. */}}
{{- define "millrace.refuse" -}}
{{- $any := or .Values.copier.enabled .Values.interceptor.enabled .Values.routerAgent.enabled -}}
{{- if $any -}}
{{- include "millrace.refuseImage" (dict "image" .Values.image "key" "image" "holds" "the image of Millrace, such as registry.example/millrace") -}}
{{- include "millrace.refuseTls" . -}}
{{- end -}}
{{- range $role := list "copier" "interceptor" "router-agent" -}}
{{- $key := include "millrace.key" $role -}}
{{- $values := get $.Values $key -}}
{{- if $values.enabled -}}
{{- $given := dict "root" $ "role" $role "key" $key "values" $values -}}
{{- include "millrace.refuseNodes" $given -}}
{{- include "millrace.refuseConfig" $given -}}
{{- include "millrace.refuseLimits" $given -}}
{{- end -}}
{{- end -}}
{{- include "millrace.refuseConsul" . -}}
{{- if .Values.copier.enabled -}}
{{- include "millrace.refusePods" . -}}
{{- end -}}
{{- include "millrace.refuseForwarding" . -}}
{{- include "millrace.refuseTogether" . -}}
{{- end -}}

{{/* Takes image, key and holds, what should be there. */}}
{{- define "millrace.refuseImage" -}}
{{- if not .image.repository -}}
{{- fail (printf "%s.repository is empty: name %s" .key .holds) -}}
{{- end -}}
{{- if regexMatch ":[^/]*$|@" .image.repository -}}
{{- fail (printf "%s.repository is %q: tag and digest belong into %s.tag and %s.digest" .key .image.repository .key .key) -}}
{{- end -}}
{{- if and (eq .image.tag "latest") (not .image.digest) -}}
{{- fail (printf "%s.tag is latest: nodes would run different versions, and a rollback would change nothing; name a version or a digest" .key) -}}
{{- end -}}
{{- end -}}

{{- define "millrace.refuseTls" -}}
{{- $tls := .Values.tls -}}
{{- if and .Values.insecure $tls.source -}}
{{- fail (printf "insecure is true and tls.source is %q: leave one of them out" $tls.source) -}}
{{- end -}}
{{- if not (or .Values.insecure $tls.source) -}}
{{- fail "tls.source is empty: say where certificates come from (secret, cert-manager, spiffe), or `insecure: true` for plain text without authentication" -}}
{{- end -}}
{{- if eq $tls.source "secret" -}}
{{- range $key := list "copier" "interceptor" "routerAgent" -}}
{{- if and (get $.Values $key).enabled (not (get $tls.secrets $key)) -}}
{{- fail (printf "tls.secrets.%s is empty: name the secret with ca.crt, tls.crt and tls.key, or choose another tls.source" $key) -}}
{{- end -}}
{{- end -}}
{{- else if eq $tls.source "cert-manager" -}}
{{- if not $tls.trustDomain -}}
{{- fail "tls.trustDomain is empty: name the trust domain of the certificates, such as example.test; it must be the same for all daemons" -}}
{{- end -}}
{{- if not $tls.certManager.issuerRef.name -}}
{{- fail "tls.certManager.issuerRef.name is empty: name the issuer (kubectl get issuers,clusterissuers -A)" -}}
{{- end -}}
{{- else if eq $tls.source "spiffe" -}}
{{- include "millrace.refuseImage" (dict "image" $tls.spiffe.helperImage "key" "tls.spiffe.helperImage" "holds" "the image of spiffe-helper") -}}
{{- if not (or $tls.spiffe.helperImage.tag $tls.spiffe.helperImage.digest) -}}
{{- fail "tls.spiffe.helperImage has neither tag nor digest: name a version, 0.10 or newer" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Takes root, role, key and values, as those below. */}}
{{- define "millrace.refuseNodes" -}}
{{- $chosen := or .values.nodeSelector .values.affinity -}}
{{- if not (or $chosen .values.allNodes) -}}
{{- fail (printf "%s runs on no node: label the nodes (kubectl label node NODE millrace=%s) and say %s.nodeSelector: {millrace: %s}; or %s.affinity, or %s.allNodes: true" .key .role .key .role .key .key) -}}
{{- end -}}
{{- if and $chosen .values.allNodes -}}
{{- fail (printf "%s.allNodes is true, and nodeSelector or affinity chooses some: leave one of them out" .key) -}}
{{- end -}}
{{- end -}}

{{- define "millrace.refuseConfig" -}}
{{- $elsewhere := dict
  "admin" (printf "%s.adminPort and adminListen say where" .key)
  "ca" "tls.source says where certificates come from"
  "cert" "tls.source says where certificates come from"
  "key" "tls.source says where certificates come from"
  "insecure" "the value `insecure` says it for all daemons"
  "control" "it is in /run/millrace of the pod, where `millrace-copier ctl` finds it"
  "report" "the report goes to the log of the pod, since its files end with it"
  "node" "it is the node that the pod is on"
  "kubeconfig" "copier.kubernetes.enabled gives the copiers an account"
  "consul" "consul.address says where it is"
  "cluster" "consul.cluster says which it is, for all daemons"
  "daemon" "a container that goes to the background ends"
  "log-file" "`kubectl logs` shows the log"
  "pid-file" "the process is number 1 of its container"
  "user" "a pod may not change users"
  "state-dir" (printf "%s" (ternary "routerAgent.stateDir says which directory of the node it is" "it lives as long as the pod" (eq .role "router-agent")))
  "manage-sysctl" "settings of the kernel are read-only in a pod; set them on the nodes (docs/kubernetes.md)"
-}}
{{- range $option, $value := .values.config -}}
{{- with get $elsewhere $option -}}
{{- fail (printf "%s.config.%s cannot be set here: %s" $.key $option .) -}}
{{- end -}}
{{- end -}}
{{- if eq .role "copier" -}}
{{- range $option := list "services" "interceptors" -}}
{{- if not (get $.values.config $option) -}}
{{- fail (printf "copier.config.%s is missing: %s" $option (ternary "what is copied, such as [\"80-198.18.2.20:8080\"]" "the hosts of the interceptors, such as [\"198.18.2.20\"]" (eq $option "services"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "millrace.refuseConsul" -}}
{{- $consul := .Values.consul | default dict -}}
{{- if not $consul.cluster -}}
{{- range $option := list "interceptors" "router-agent" "share" "follow-plan" -}}
{{- $value := get $.Values.copier.config $option -}}
{{- if or (contains "consul:" (toString $value)) (and (eq $option "share") (hasPrefix "auto" (toString $value))) (and (eq $option "follow-plan") $value) -}}
{{- if $.Values.copier.enabled -}}
{{- fail (printf "copier.config.%s needs Consul: name the cluster there in consul.cluster" $option) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "tokenSecret" "caSecret" -}}
{{- if get $consul $key -}}
{{- fail (printf "consul.%s is set, and consul.cluster is not: name the cluster, or leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- else if and (hasPrefix "https:" $consul.address) (not $consul.caSecret) -}}
{{- fail "consul.address begins with https: name the secret that has Consul's CA as ca.crt in consul.caSecret" -}}
{{- end -}}
{{- end -}}

{{- define "millrace.refusePods" -}}
{{- $namespaces := include "millrace.podNamespaces" . | fromJsonArray -}}
{{- range $namespace := $namespaces -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" $namespace) -}}
{{- fail (printf "copier.config.services: %q is not a namespace: write service/NAMESPACE/NAME:PORT-TARGET:PORT" $namespace) -}}
{{- end -}}
{{- end -}}
{{- if and $namespaces (not (include "millrace.kubernetes" .)) -}}
{{- fail (printf "copier.config.services names pods of the namespace %s, and copiers may not ask the API which there are: say copier.kubernetes.enabled: true" (first $namespaces)) -}}
{{- end -}}
{{- if and (include "millrace.kubernetes" .) (not $namespaces) -}}
{{- fail "copier.kubernetes.enabled is true, and no service of copier.config.services is in pods: write service/NAMESPACE/NAME:PORT-TARGET:PORT there, or leave it out" -}}
{{- end -}}
{{- end -}}

{{- define "millrace.refuseForwarding" -}}
{{- $config := .Values.interceptor.config -}}
{{- $mode := get $config "mode" | default (ternary "link" "sink" (hasKey $config "devices")) -}}
{{- if and .Values.interceptor.enabled (eq $mode "link") (not (get $config "allow-forwarding")) -}}
{{- fail "interceptor.config makes the node an assistant (mode link), and nodes of Kubernetes forward packets: what is diverted to it would go on to real clients, so the interceptor would serve nobody. Have the node's firewall drop it and say allow-forwarding: true, or divert on the targets' hosts (routerAgent, mode sink)" -}}
{{- end -}}
{{- end -}}

{{- define "millrace.refuseLimits" -}}
{{- $limits := .values.resources.limits -}}
{{- $mebibytes := divf (include "millrace.bytes" $limits.memory | float64) 1048576 -}}
{{- $least := get (dict "copier" 128 "interceptor" 128 "router-agent" 64) .role -}}
{{- if lt $mebibytes (float64 $least) -}}
{{- fail (printf "%s.resources.limits.memory is %v: give it %dMi or more" .key $limits.memory $least) -}}
{{- end -}}
{{- if lt (include "millrace.millicores" $limits.cpu | int) 100 -}}
{{- fail (printf "%s.resources.limits.cpu is %v: give it 100m or more" .key $limits.cpu) -}}
{{- end -}}
{{- if eq .role "copier" -}}
{{- with get .values.config "memory" -}}
{{- if gt (float64 .) $mebibytes -}}
{{- fail (printf "copier.config.memory is %v MB, and the container may have %v: the kernel would end the copier; raise copier.resources.limits.memory, or leave memory out" . $limits.memory) -}}
{{- end -}}
{{- end -}}
{{- with get .values.config "buffer" -}}
{{- $memory := get $.values.config "memory" | default (mulf $mebibytes 0.75) | float64 -}}
{{- if gt (float64 .) $memory -}}
{{- fail (printf "copier.config.buffer is %v MB, a part of memory, which is %v MB; raise copier.resources.limits.memory, or lower buffer" . $memory) -}}
{{- end -}}
{{- end -}}
{{- with get .values.config "max-cpu" -}}
{{- if gt (mulf (float64 .) 10) (include "millrace.millicores" $limits.cpu | float64) -}}
{{- fail (printf "copier.config.max-cpu is %v percent of a core, and the container may have %v cores: the kernel would stop the copier in between; raise copier.resources.limits.cpu, or leave max-cpu out" . $limits.cpu) -}}
{{- end -}}
{{- end -}}
{{- else if eq .role "interceptor" -}}
{{- $buffers := divf (include "millrace.interceptorBuffers" .values | float64) 1048576 -}}
{{- if gt (addf $buffers 64) $mebibytes -}}
{{- fail (printf "interceptor.config.buffer: the buffers of all devices take %v MB, and the container may have %v; raise interceptor.resources.limits.memory, or lower buffer" $buffers $limits.memory) -}}
{{- end -}}
{{- with get .values.config "max-flows" -}}
{{- if gt (divf (mulf (float64 .) 200) 1048576) (subf $mebibytes $buffers 64) -}}
{{- fail (printf "interceptor.config.max-flows is %v: they take up to 200 bytes each, and the container may have %v; raise interceptor.resources.limits.memory, or leave max-flows out" (include "millrace.tomlValue" .) $limits.memory) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "millrace.refuseTogether" -}}
{{- $copier := .Values.copier -}}
{{- $interceptor := .Values.interceptor -}}
{{- $agent := .Values.routerAgent -}}
{{- if and $copier.enabled $agent.enabled -}}
{{- $same := and $copier.nodeSelector (eq (toJson $copier.nodeSelector) (toJson $agent.nodeSelector)) -}}
{{- if or $same $copier.allNodes $agent.allNodes -}}
{{- fail "copier and routerAgent would run on the same nodes: a target is another host than the live server, or their answers cannot be told apart; choose nodes by copier.nodeSelector and routerAgent.nodeSelector" -}}
{{- end -}}
{{- end -}}
{{- if and $interceptor.enabled $agent.enabled -}}
{{- $diverts := get $agent.config "mode" | default "sink" -}}
{{- $takes := get $interceptor.config "mode" | default (ternary "link" "sink" (hasKey $interceptor.config "devices")) -}}
{{- if ne $takes (get (dict "sink" "sink" "assistant" "link" "nfqueue" "nfqueue") $diverts) -}}
{{- fail (printf "routerAgent.config.mode is %s and interceptor.config.mode is %s: no answer would arrive; sink belongs to sink, assistant to link, nfqueue to nfqueue (docs/lvs-dr.md)" $diverts $takes) -}}
{{- end -}}
{{- if eq (int $interceptor.adminPort) (int $agent.adminPort) -}}
{{- fail (printf "interceptor.adminPort and routerAgent.adminPort are both %d: on the network of the node only one of them gets it" (int $agent.adminPort)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled (eq .Values.adminListen "loopback") -}}
{{- fail "monitoring.podMonitor.enabled is true, and the daemons listen on the loopback address of their nodes, where Prometheus does not get in: say adminListen: node" -}}
{{- end -}}
{{- end -}}
