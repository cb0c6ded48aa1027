"""What no pod may have, and what each must have."""

import pytest
from chart import SCENARIOS, component, configurations, manifests, pods

# What each daemon may have at most, whatever its options are.
ALLOWED = {
    "copier": {"NET_RAW", "NET_ADMIN", "SYS_NICE"},
    "interceptor": {"NET_RAW", "NET_ADMIN"},
    "router-agent": {"NET_RAW", "NET_ADMIN"},
}
# What is taken only where an option wants it: role, capability, and the option in the configuration.
ONLY_WITH = [("copier", "SYS_NICE", "capture-nice = -"), ("interceptor", "NET_ADMIN", 'mode = "nfqueue"')]
HOST_PATHS = {"router-agent": {"/run/millrace", "/run/xtables.lock"}}


def role_of(name: str) -> str:
    return next(role for role in ALLOWED if name.startswith(f"millrace-{role}"))


def containers(spec: dict) -> list[dict]:
    return spec["containers"] + spec.get("initContainers", [])


def helpers(spec: dict) -> list[dict]:
    return spec.get("initContainers", [])


every = pytest.mark.parametrize(
    ("name", "spec"),
    [pytest.param(name, spec, id=f"{scenario}:{name}") for scenario in SCENARIOS for name, spec in pods(scenario)],
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nobody_has_an_account_at_the_api_but_copiers_that_look_for_pods(scenario):
    for name, spec in pods(scenario):
        wanted = scenario == "pods" and role_of(name) == "copier"
        assert spec["automountServiceAccountToken"] is wanted
    for manifest in manifests(scenario):
        if manifest["kind"] == "ServiceAccount":
            assert manifest["automountServiceAccountToken"] is False


@every
def test_no_more_rights_than_needed(name, spec):
    for container in containers(spec):
        security = container["securityContext"]
        assert security["privileged"] is False
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        added = set(security["capabilities"].get("add", []))
        assert added <= (ALLOWED[role_of(name)] if container in spec["containers"] else set())
        assert security.get("appArmorProfile", {"type": "RuntimeDefault"}) == {"type": "RuntimeDefault"}
    assert spec["enableServiceLinks"] is False
    assert not spec.get("hostPID") and not spec.get("hostIPC")


@every
def test_nothing_of_the_node_but_its_network_and_the_agents_directory(name, spec):
    assert spec["hostNetwork"] is True
    assert spec["dnsPolicy"] == "ClusterFirstWithHostNet"
    paths = {volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}
    assert paths <= HOST_PATHS.get(role_of(name), set())
    for container in containers(spec):
        writable = {it["mountPath"] for it in container["volumeMounts"] if not it.get("readOnly")}
        helper = container in helpers(spec)
        assert writable <= ({"/etc/millrace/tls"} if helper else {"/run/millrace", "/run/xtables.lock", "/var/lib/millrace/copier"})


@every
def test_images_are_named_by_version_or_digest(name, spec):
    for container in containers(spec):
        image = container["image"]
        assert "@sha256:" in image or image.rpartition(":")[2] not in ("", "latest", image), image


@every
def test_limits_and_probes(name, spec):
    for container in containers(spec):
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        stays = container in spec["containers"] or container.get("restartPolicy") == "Always"
        if stays and spec.get("restartPolicy") != "Never":
            assert {"livenessProbe", "readinessProbe"} <= set(container), container["name"]
    assert spec.get("restartPolicy") != "Never" or spec["activeDeadlineSeconds"] <= 300


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_one_pod_on_a_node_at_a_time_and_never_on_nodes_that_nobody_chose(scenario):
    for manifest in manifests(scenario):
        if manifest["kind"] != "DaemonSet":
            continue
        rolling = manifest["spec"]["updateStrategy"]
        assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
        spec = manifest["spec"]["template"]["spec"]
        assert spec.get("nodeSelector") or spec.get("affinity") or scenario == "target-only"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_plain_text_only_where_the_values_say_so(scenario):
    for role, text in configurations(scenario).items():
        assert ("insecure = true" in text) == (scenario == "insecure"), role
        assert ("ca = " in text) == (scenario != "insecure"), role


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_capabilities_that_an_option_needs_come_with_it_alone(scenario):
    texts = configurations(scenario)
    for manifest in manifests(scenario):
        if manifest["kind"] == "DaemonSet":
            role = component(manifest)
            added = manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"]
            for of, capability, option in ONLY_WITH:
                assert of != role or (capability in added) == (option in texts[role])


# What roles may give, by scenario: API group, resources, verbs.
RIGHTS = {
    "openshift": ("security.openshift.io", ["securitycontextconstraints"], ["use"]),
    "pods": ("", ["pods", "services"], ["list", "watch"]),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nobody_gets_rights_at_the_api_but_those_that_a_value_asks_for(scenario):
    assert not [it for it in manifests(scenario) if it["kind"] == "ClusterRole"]
    roles = [it for it in manifests(scenario) if it["kind"] == "Role"]
    given = set()
    for role in roles:
        [rule] = role["rules"]
        kind = "openshift" if rule["apiGroups"] == ["security.openshift.io"] else "pods"
        assert (rule["apiGroups"][0], rule["resources"], rule["verbs"]) == RIGHTS[kind]
        assert kind == "pods" or len(rule["resourceNames"]) == 1
        given.add(kind)
    assert given == {"openshift": {"openshift"}, "pods": {"openshift", "pods"}}.get(scenario, set())


def test_openshift_lets_a_copier_that_looks_for_pods_have_its_token():
    for scenario, wanted in (("openshift", False), ("pods", True)):
        [constraints] = [
            it
            for it in manifests(scenario)
            if it["kind"] == "SecurityContextConstraints" and it["metadata"]["name"].endswith("-copier")
        ]
        assert ("projected" in constraints["volumes"]) is wanted


def test_copiers_look_for_pods_in_the_namespaces_of_their_services_alone():
    bindings = [it for it in manifests("pods") if it["kind"] == "RoleBinding" and "-pods-" in it["metadata"]["name"]]
    assert sorted(it["metadata"]["namespace"] for it in bindings) == ["shop", "stock"]
    for binding in bindings:
        [subject] = binding["subjects"]
        assert (subject["kind"], subject["name"]) == ("ServiceAccount", "millrace-copier")
