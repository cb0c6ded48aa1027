"""What follows from what."""

import json
import tomllib

import pytest
import yaml
from chart import (
    CHART,
    ROLES,
    ROOT,
    attempt,
    configurations,
    container,
    daemon_set,
    manifests,
    of_kind,
    pods,
    run_helm,
    values_file,
)


def copier_config(*sets):
    return tomllib.loads(configurations("one-target", *sets)["copier"])


@pytest.mark.parametrize(
    ("cpu", "memory", "max_cpu", "megabytes"),
    [("1", "1Gi", 90, 768), ("1500m", "2Gi", 135, 1536), ("0.5", "1500Mi", 45, 1125), ("2", "1G", 180, 715)],
)
def test_limits_reach_the_copier(cpu, memory, max_cpu, megabytes):
    config = copier_config(f'copier.resources.limits={{"cpu": "{cpu}", "memory": "{memory}"}}')
    assert (config["max-cpu"], config["memory"]) == (max_cpu, megabytes)


def test_what_the_operator_says_wins_over_what_follows_from_limits():
    config = copier_config("copier.config.memory=300", "copier.config.max-cpu=20")
    assert (config["max-cpu"], config["memory"]) == (20, 300)


@pytest.mark.parametrize(
    ("memory", "options", "flows"),
    [("640Mi", {}, 2_000_000), ("256Mi", {}, 692_060), ("256Mi", {"devices": ["eth0", "eth1"], "allow-forwarding": True}, 629_145)],
)
def test_limits_reach_the_interceptor(memory, options, flows):
    sets = [f'interceptor.resources.limits.memory="{memory}"', f"interceptor.config={json.dumps(options)}"]
    text = configurations("one-target", *sets, "routerAgent.enabled=false")["interceptor"]
    assert tomllib.loads(text)["max-flows"] == flows


def test_an_agent_keeps_the_ports_of_the_node_unless_it_is_told_which():
    assert tomllib.loads(configurations("one-target")["router-agent"])["keep-ports"] == [22, 36524, 6443, 10250]
    assert tomllib.loads(configurations("target-only")["router-agent"])["keep-ports"] == [22, 36524, 10250]


def test_values_keep_their_types():
    config = copier_config(
        "copier.config.percent=12.5",
        "copier.config.port=36600",
        "copier.config.no-wait=true",
        "copier.config.nat=false",
        'copier.config.guard=["resets>2%:step-back"]',
        'copier.config.intensity-key="a \\"quoted\\" key & more"',
        "copier.config.max-new-sessions=1000000",
        "copier.config.ramp=null",
    )
    assert config["percent"] == 12.5
    assert config["port"] == 36600 and isinstance(config["port"], int)
    assert config["no-wait"] is True and config["nat"] is False
    assert config["guard"] == ["resets>2%:step-back"]
    assert config["intensity-key"] == 'a "quoted" key & more'
    assert config["max-new-sessions"] == 1_000_000
    assert "ramp" not in config


@pytest.mark.parametrize(("grace", "seconds"), [(None, 45), (60, 75), (0, 15), ("90", 105)])
def test_a_pod_may_take_longer_to_end_than_the_copier_drains(grace, seconds):
    sets = [] if grace is None else [f"copier.config.grace={json.dumps(grace)}"]
    spec = daemon_set("copier", "one-target", *sets)["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == seconds
    assert "lifecycle" not in spec["containers"][0]


def test_the_kill_switch_ends_copiers_and_nothing_else():
    before = {(it["kind"], it["metadata"]["name"]) for it in manifests("one-target")}
    after = {(it["kind"], it["metadata"]["name"]) for it in manifests("one-target", "killSwitch=true")}
    assert before - after == {("DaemonSet", "millrace-copier")}
    assert not after - before
    assert ("DaemonSet", "millrace-router-agent") in after and ("DaemonSet", "millrace-interceptor") in after
    assert ("Pod", "millrace-copier-check-0") in after, "copiers are checked before they copy again"


@pytest.mark.parametrize("key", ROLES)
def test_each_daemon_is_enabled_alone(key):
    others = [f"{other}.enabled=false" for other in ROLES if other != key]
    names = {it["metadata"]["name"] for it in manifests("one-target", *others)}
    assert {name for name in names if "check" not in name} == {f"millrace-{ROLES[key]}"}


def test_a_change_of_the_configuration_is_rolled_out_to_its_daemon_alone():
    def annotations(role, *sets):
        return daemon_set(role, "one-target", *sets)["spec"]["template"]["metadata"]["annotations"]

    changed = "copier.config.percent=20"
    assert annotations("copier") != annotations("copier", changed)
    assert annotations("interceptor") == annotations("interceptor", changed)


def test_a_new_chart_that_changes_nothing_restarts_nothing():
    labels = daemon_set("copier", "one-target")["spec"]["template"]["metadata"]["labels"]
    assert "helm.sh/chart" not in labels and "app.kubernetes.io/version" not in labels


@pytest.mark.parametrize("scenario", ["one-target", "cert-manager", "spiffe"])
def test_certificates_are_where_the_configuration_says(scenario):
    for role, text in configurations(scenario).items():
        config = tomllib.loads(text)
        spec = daemon_set(role, scenario)["spec"]["template"]["spec"]
        [tls] = [it for it in spec["volumes"] if it["name"] == "tls"]
        wanted = {"ca.pem", f"{role}.pem", f"{role}-key.pem"}
        assert {config[key].rpartition("/")[2] for key in ("ca", "cert", "key")} == wanted
        if scenario == "spiffe":
            helper = configuration_of_helper(role)
            assert all(f'"{name}"' in helper for name in wanted)
        else:
            assert {it["path"] for it in tls["secret"]["items"]} == wanted
            assert tls["secret"]["defaultMode"] == 0o400


def configuration_of_helper(role):
    [data] = [it["data"] for it in of_kind("ConfigMap", "spiffe") if it["metadata"]["name"] == f"millrace-{role}"]
    return data["helper.conf"]


def test_a_certificate_says_the_role_and_fills_the_secret_that_the_pod_has():
    for certificate in of_kind("Certificate", "cert-manager"):
        role = certificate["metadata"]["name"].removeprefix("millrace-")
        assert certificate["spec"]["uris"] == [f"spiffe://example.test/millrace/{role}"]
        usage = "client auth" if role == "copier" else "server auth"
        assert certificate["spec"]["usages"] == ["digital signature", usage]
        spec = daemon_set(role, "cert-manager")["spec"]["template"]["spec"]
        [tls] = [it for it in spec["volumes"] if it["name"] == "tls"]
        assert tls["secret"]["secretName"] == certificate["spec"]["secretName"]


def test_the_helper_ports_of_a_node_differ():
    ports = set()
    for role in ROLES.values():
        spec = daemon_set(role, "spiffe")["spec"]["template"]["spec"]
        [stays] = [it for it in spec["initContainers"] if it.get("restartPolicy") == "Always"]
        ports.add(stays["livenessProbe"]["httpGet"]["port"])
        assert f"bind_port = {stays['livenessProbe']['httpGet']['port']}" in configuration_of_helper(role)
    assert len(ports) == 3


def test_probes_go_where_the_admin_port_is():
    for listen, host, value in [
        ("loopback", "127.0.0.1", None),
        ("node", None, "$(HOST_IP):36530"),
        ("node-ipv6", None, "[$(HOST_IP)]:36530"),
    ]:
        found = container("copier", "one-target", f'adminListen="{listen}"')
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert found[probe]["httpGet"].get("host") == host
            assert found[probe]["httpGet"]["port"] == "admin"
        environment = {it["name"]: it.get("value") for it in found.get("env", [])}
        assert environment.get("MILLRACE_COPIER_ADMIN") == value
        config = copier_config(f'adminListen="{listen}"')
        assert config.get("admin") == ("127.0.0.1:36530" if listen == "loopback" else None)


def test_without_tls_a_daemon_listens_on_the_nodes_address_or_where_it_is_told():
    environment = {it["name"]: it for it in container("interceptor", "insecure")["env"]}
    assert environment["MILLRACE_INTERCEPTOR_BIND"]["value"] == "$(HOST_IP)"
    assert environment["HOST_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.hostIP"
    # Kubernetes puts in only what stands before.
    assert list(environment) == ["HOST_IP", "MILLRACE_INTERCEPTOR_BIND"]
    assert "env" not in container("router-agent", "insecure")
    assert 'bind = "198.18.2.20"' in configurations("insecure")["router-agent"]


def test_ports_of_the_node_are_named_to_the_scheduler():
    sets = ["interceptor.config.port=36600"]
    ports = {it["name"]: (it["containerPort"], it["hostPort"]) for it in container("interceptor", "one-target", *sets)["ports"]}
    assert ports == {"admin": (36531, 36531), "copiers": (36600, 36600)}


def test_each_node_is_checked_with_what_its_daemon_has():
    checks = {name: spec for name, spec in pods("lvs-dr") if "check" in name}
    assert len(checks) == 8
    for number, node in enumerate(["rs1", "rs2", "rs3"]):
        spec = checks[f"millrace-router-agent-check-{number}"]
        [term] = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        daemon = daemon_set("router-agent", "lvs-dr")["spec"]["template"]["spec"]
        assert spec["volumes"] == daemon["volumes"]
        for same in ("image", "securityContext", "volumeMounts"):
            assert spec["containers"][0][same] == daemon["containers"][0][same]
        assert "ports" not in spec["containers"][0], "the daemon has them"


def test_a_check_is_no_target_of_prometheus_and_no_pod_of_the_daemon_set():
    chosen = {it["values"] and tuple(it["values"]) for it in of_kind("PodMonitor", "monitoring")[0]["spec"]["selector"]["matchExpressions"]}
    assert chosen == {("copier", "interceptor", "router-agent")}
    for pod in of_kind("Pod", "monitoring"):
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"].endswith("-check")


def test_rules_and_dashboards_are_whole():
    [rule] = of_kind("PrometheusRule", "monitoring")
    read = [yaml.safe_load((ROOT / f"deploy/mixin/{it}.yaml").read_text())["groups"] for it in ("rules", "alerts")]
    assert rule["spec"]["groups"] == read[0] + read[1]
    [boards] = [it for it in of_kind("ConfigMap", "monitoring") if it["metadata"]["name"].endswith("dashboards")]
    for path in (ROOT / "deploy/mixin/dashboards").iterdir():
        assert json.loads(boards["data"][f"millrace-{path.name}"]) == json.loads(path.read_text())


def test_constraints_allow_what_the_pods_have():
    for constraints in of_kind("SecurityContextConstraints", "openshift"):
        name = constraints["metadata"]["name"].removeprefix("millrace-")
        spec = daemon_set(name.removeprefix("millrace-"), "openshift")["spec"]["template"]["spec"]
        assert constraints["allowedCapabilities"] == spec["containers"][0]["securityContext"]["capabilities"]["add"]
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= set(constraints["volumes"])
        assert constraints["allowHostDirVolumePlugin"] == ("hostPath" in kinds)
        [role] = [it for it in of_kind("Role", "openshift") if it["metadata"]["name"] == spec["serviceAccountName"]]
        assert role["rules"][0]["resourceNames"] == [constraints["metadata"]["name"]]


@pytest.mark.parametrize(
    ("scenario", "sets", "words"),
    [
        ("one-target", [], ["kubectl -n millrace delete daemonset millrace-copier", "helm test millrace -n millrace"]),
        ("one-target", ["killSwitch=true"], ["THE KILL SWITCH IS ON"]),
        ("insecure", [], ["WARNING: insecure is true"]),
        ("copier-only", [], ["WARNING: all copiers have the client pool"]),
        ("one-target", ["copier.config.router-agent=null"], ["WARNING: neither router-agent nor client-pool"]),
    ],
)
def test_notes_say_what_to_do_next(scenario, sets, words):
    more = [word for it in sets for word in ("--set-json", it)]
    arguments = ["--dry-run=client", "-n", "millrace", "-f", values_file(scenario), *more]
    done = run_helm("install", "millrace", CHART, *arguments)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert all(word in notes for word in words), notes


def test_further_manifests_are_maps_or_templates():
    names = {it["metadata"]["name"] for it in manifests("monitoring") if it["kind"] in ("PriorityClass", "ConfigMap")}
    assert {"millrace-copier", "millrace-owner"} <= names
    assert attempt("monitoring", 'extraManifests=["{{ fail \\"mine\\" }}"]').returncode != 0
