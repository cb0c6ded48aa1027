"""The nodes that `helm test` checks, as a cluster names them: helm asks an API that knows its nodes and nothing else."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from chart import CHART, run_helm, values_file

NODES = {"live1": "live", "live2": "live", "rs1": "target", "control": None}


def node(name, role):
    labels = {"kubernetes.io/hostname": name} | ({"millrace": role} if role else {})
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def resources(version, **kinds):
    each = [{"name": f"{it.lower()}s", "kind": it, "namespaced": spaced, "verbs": ["list"]} for it, spaced in kinds.items()]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": each}


APPS = {"groupVersion": "apps/v1", "version": "v1"}
# As a kube-apiserver answers these paths: the version, which kinds there are, and the nodes.
ANSWERS = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [APPS], "preferredVersion": APPS}],
    },
    "/api/v1": resources("v1", Node=False, ServiceAccount=True, ConfigMap=True, Pod=True),
    "/apis/apps/v1": resources("apps/v1", DaemonSet=True),
    "/api/v1/nodes": {"kind": "NodeList", "apiVersion": "v1", "items": [node(*it) for it in NODES.items()]},
}


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = ANSWERS.get(self.path.partition("?")[0])
        body = json.dumps(answer or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    yield str(file)
    server.shutdown()


def checked(cluster, *more):
    """Role and node of each pod of the test."""
    words = ["template", "millrace", CHART, "-n", "millrace", "-f", values_file("one-target"), *more]
    done = run_helm(*words, "--dry-run=server", "--disable-openapi-validation", "--kubeconfig", cluster)
    assert done.returncode == 0, done.stderr
    for pod in yaml.safe_load_all(done.stdout):
        if pod and pod["kind"] == "Pod":
            affinity = pod["spec"].get("affinity")
            field = affinity and affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            role = pod["metadata"]["labels"]["app.kubernetes.io/component"].removesuffix("-check")
            yield role, field and field["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]


def test_each_node_that_the_selector_chooses_is_checked(cluster):
    assert sorted(checked(cluster)) == [
        ("copier", "live1"),
        ("copier", "live2"),
        ("interceptor", "rs1"),
        ("router-agent", "rs1"),
    ]


def test_nodes_that_are_named_win(cluster):
    found = list(checked(cluster, "--set", "tests.nodes.copier={live2}"))
    assert [it for it in found if it[0] == "copier"] == [("copier", "live2")]


def test_without_the_right_to_ask_one_node_of_each_role_is_checked(cluster):
    assert {it for it in checked(cluster, "--set", "tests.lookup=false")} == {
        ("copier", None),
        ("interceptor", None),
        ("router-agent", None),
    }
