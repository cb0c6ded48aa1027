"""Values that are wrong are refused, in words that say what to change."""

import pytest
from chart import attempt

# scenario; what is set upon it; words of the answer: which value, and what to do.
REFUSED = {
    "a misspelt value": ("one-target", ["copier.enable=true"], ["/copier", "'enable' not allowed"]),
    "a misspelt option": ("one-target", ["copier.config.servics=[]"], ["/copier/config", "'servics' not allowed"]),
    "a flag with a value": ("one-target", ['copier.config.no-wait="yes"'], ["/copier/config/no-wait", "boolean"]),
    "a text for a switch": ("one-target", ['killSwitch="on"'], ["/killSwitch", "boolean"]),
    "a memory limit without unit that is known": (
        "one-target",
        ['copier.resources.limits.memory="1GB"'],
        ["/copier/resources/limits/memory", "does not match"],
    ),
    "no limits": ("one-target", ["copier.resources={\"limits\": null}"], ["/copier/resources", "limits"]),
    "a source of certificates that there is not": ("one-target", ['tls.source="vault"'], ["/tls/source", "'spiffe'"]),
    "an image without place": ("one-target", ['image.repository=""'], ["image.repository is empty", "name the image"]),
    "a tag in the repository": (
        "one-target",
        ['image.repository="registry.example:5000/millrace:0.1.0"'],
        ["image.repository", "image.tag"],
    ),
    "the tag latest": ("one-target", ['image.tag="latest"'], ["image.tag is latest", "version or a digest"]),
    "a digest that is none": ("one-target", ['image.digest="sha256:12"'], ["/image/digest", "does not match"]),
    "neither certificates nor insecure": ("one-target", ['tls.source=""'], ["tls.source is empty", "insecure: true"]),
    "certificates and insecure": ("one-target", ["insecure=true"], ["insecure is true", "leave one of them out"]),
    "a secret that is not named": (
        "one-target",
        ['tls.secrets.routerAgent=""'],
        ["tls.secrets.routerAgent is empty", "tls.key"],
    ),
    "no trust domain": ("cert-manager", ['tls.trustDomain=""'], ["tls.trustDomain is empty", "example.test"]),
    "no issuer": ("cert-manager", ['tls.certManager.issuerRef.name=""'], ["issuerRef.name is empty", "kubectl get"]),
    "a helper without version": ("spiffe", ['tls.spiffe.helperImage.tag=""'], ["helperImage", "neither tag nor digest"]),
    "the helper's latest": ("spiffe", ['tls.spiffe.helperImage.tag="latest"'], ["helperImage.tag is latest"]),
    "no nodes": (
        "one-target",
        ["copier.nodeSelector=null"],
        ["copier runs on no node", "kubectl label node NODE millrace=copier", "copier.allNodes"],
    ),
    "some nodes and all": ("one-target", ["interceptor.allNodes=true"], ["interceptor.allNodes", "leave one"]),
    "copier and agent on the same nodes": (
        "one-target",
        ['copier.nodeSelector={"millrace": "target"}'],
        ["same nodes", "copier.nodeSelector"],
    ),
    "no services": ("one-target", ["copier.config.services=null"], ["copier.config.services is missing", "80-198"]),
    "no interceptors": ("one-target", ["copier.config.interceptors=[]"], ["copier.config.interceptors is missing"]),
    "pods without the right to look for them": (
        "pods",
        ["copier.kubernetes.enabled=false"],
        ["pods of the namespace shop", "copier.kubernetes.enabled: true"],
    ),
    "pods without a namespace": (
        "pods",
        ['copier.config.services=["service/:80-198.18.2.20:80"]'],
        ["is not a namespace", "service/NAMESPACE/NAME"],
    ),
    "a right that nobody needs": (
        "one-target",
        ["copier.kubernetes.enabled=true"],
        ["no service of copier.config.services is in pods", "service/NAMESPACE/NAME"],
    ),
    "peers in a Consul that nobody named": (
        "one-target",
        ['copier.config.interceptors=["consul:web"]'],
        ["copier.config.interceptors needs Consul", "consul.cluster"],
    ),
    "a plan in a Consul that nobody named": (
        "one-target",
        ["copier.config.follow-plan=true"],
        ["copier.config.follow-plan needs Consul", "consul.cluster"],
    ),
    "tokens for no Consul": ("one-target", ['consul.tokenSecret="some"'], ["consul.tokenSecret", "consul.cluster"]),
    "a Consul with TLS and no CA": ("consul", ['consul.caSecret=""'], ["https", "consul.caSecret"]),
    "a cluster in the options": ("consul", ['interceptor.config.cluster="x"'], ["consul.cluster says which"]),
    "a node in the options": ("pods", ['copier.config.node="live1"'], ["copier.config.node cannot be set here"]),
    "an option that the chart sets": (
        "one-target",
        ['copier.config.admin="0.0.0.0:1"'],
        ["copier.config.admin cannot be set here", "adminListen"],
    ),
    "insecure as an option": ("one-target", ["copier.config.insecure=true"], ["cannot be set here", "`insecure`"]),
    "settings of the kernel": (
        "one-target",
        ["routerAgent.config.manage-sysctl=true"],
        ["manage-sysctl cannot be set here", "set them on the nodes"],
    ),
    "more memory than the limit": (
        "one-target",
        ["copier.config.memory=2048"],
        ["copier.config.memory is 2048 MB", "1Gi", "raise copier.resources.limits.memory"],
    ),
    "a buffer beyond the memory": ("one-target", ["copier.config.buffer=1000"], ["buffer is 1000 MB", "768 MB"]),
    "more CPU time than the limit": (
        "one-target",
        ["copier.config.max-cpu=150"],
        ["max-cpu is 150 percent", "raise copier.resources.limits.cpu"],
    ),
    "more flows than fit": ("one-target", ["interceptor.config.max-flows=9000000"], ["max-flows is 9000000", "640Mi"]),
    "buffers beyond the limit": (
        "one-target",
        ["interceptor.config.buffer=600"],
        ["buffers of all devices take 600 MB", "640Mi", "lower buffer"],
    ),
    "too little memory": (
        "one-target",
        ['copier.resources.limits.memory="64Mi"'],
        ["copier.resources.limits.memory is 64Mi", "128Mi or more"],
    ),
    "too little CPU time": ("one-target", ['routerAgent.resources.limits.cpu="50m"'], ["limits.cpu is 50m", "100m"]),
    "modes that do not meet": (
        "one-target",
        ['routerAgent.config.mode="nfqueue"'],
        ["mode is nfqueue", "interceptor.config.mode is sink", "nfqueue to nfqueue"],
    ),
    "a node as an assistant": (
        "one-target",
        ['interceptor.config.devices=["eth0"]', "routerAgent.enabled=false"],
        ["nodes of Kubernetes forward packets", "allow-forwarding: true"],
    ),
    "one admin port for two": ("one-target", ["interceptor.adminPort=36532"], ["adminPort", "both 36532"]),
    "metrics that nobody reaches": (
        "monitoring",
        ['adminListen="loopback"'],
        ["monitoring.podMonitor.enabled", "adminListen: node"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    scenario, sets, words = REFUSED[name]
    done = attempt(scenario, *sets)
    assert done.returncode != 0, "it was accepted"
    missing = [word for word in words if word not in done.stderr]
    assert not missing, f"{missing} not in: {done.stderr}"


@pytest.mark.parametrize("scenario", {scenario for scenario, _, _ in REFUSED.values()})
def test_the_scenarios_themselves_are_accepted(scenario):
    assert attempt(scenario).returncode == 0
