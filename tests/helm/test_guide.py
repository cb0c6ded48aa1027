"""docs/kubernetes.md: its values are accepted, its commands are ones that helm and kubectl know."""

import os
import re
import shlex
import subprocess

import pytest
import yaml
from chart import CHART, HELM, PROGRAMS, ROOT, of_kind

GUIDE = (ROOT / "docs/kubernetes.md").read_text()
KUBECTL = os.environ.get("KUBECTL", "kubectl")
BLOCKS = re.findall(r"^```(\w+)( \w+)?\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
VALUES = [text for kind, _, text in BLOCKS if kind == "yaml" and "apiVersion:" not in text]
SHELL = [text for kind, host, text in BLOCKS if kind == "sh" and host != " node"]
WORDS = [line for text in SHELL for line in text.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with what the guide has made so far."""
    directory = tmp_path_factory.mktemp("guide")
    (directory / "values.yaml").write_text(VALUES[0])
    (directory / "deploy").symlink_to(ROOT / "deploy")
    return directory


def run(place, *words):
    path = f"{os.path.dirname(HELM)}:{os.path.dirname(KUBECTL)}:{PROGRAMS}:{os.environ['PATH']}"
    return subprocess.run(words, cwd=place, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_its_values_are_accepted(number, place):
    (place / "more.yaml").write_text(VALUES[number])
    done = run(place, HELM, "template", "millrace", str(CHART), "-f", "values.yaml", "-f", "more.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kind: DaemonSet") == 3


@pytest.mark.parametrize("line", [line for line in WORDS if line.startswith("helm ")])
def test_helm_knows_the_command(line, place):
    words = shlex.split(line)
    if words[1] in ("install", "upgrade"):
        # The same without a cluster: what an upgrade renders is what an install does.
        words[1] = "install"
        words = [word for word in words if word not in ("--wait", "--dry-run=client")]
        done = run(place, *words, "--dry-run=client")
        assert done.returncode == 0, done.stderr
        assert ("kind: DaemonSet\nmetadata:\n  name: millrace-copier" in done.stdout) == ("killSwitch=true" not in line)
    else:
        known = run(place, "helm", words[1], "--help").stdout
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert all(option in known for option in options), line


def test_the_secrets_have_what_the_pods_mount(place):
    [text] = [text for text in SHELL if "millrace-copier certs" in text]
    done = run(place, "bash", "-ec", text.replace("kubectl -n millrace create", "kubectl -n millrace create --dry-run=client -o json"))
    assert done.returncode == 0, done.stderr
    made = {it["metadata"]["name"]: set(it["data"]) for it in documents(done.stdout)}
    wanted = {
        it["secret"]["secretName"]: {item["key"] for item in it["secret"]["items"]}
        for daemon_set in of_kind("DaemonSet", "one-target")
        for it in daemon_set["spec"]["template"]["spec"]["volumes"]
        if "secret" in it
    }
    assert made == wanted and len(made) == 3


def documents(text: str):
    """Several JSON documents, one behind the other, after what another program said."""
    return yaml.safe_load_all("---\n{" + "\n---\n{".join(re.split(r"^\{", text, flags=re.MULTILINE)[1:]))


@pytest.mark.parametrize("line", [line for line in WORDS if "kubectl" in line and "create secret" not in line])
def test_kubectl_knows_the_command(line, place):
    line = re.search(r"kubectl [^|;)]*", line)[0]
    words = [word for word in shlex.split(line.replace(" -n millrace", ""))]
    known = run(place, "kubectl", words[1], "--help")
    assert known.returncode == 0
    options = [word for word in words[2:] if word.startswith("-") and len(word) > 1 and word != "--"]
    ours = words.index("--") if "--" in words else len(words)
    for option in [word for word in words[2:ours] if word in options]:
        assert f"{option}=" in known.stdout or f"{option}," in known.stdout, f"{option} in {line}"


@pytest.mark.parametrize("line", [line for line in WORDS if " -- millrace-" in line])
def test_the_daemons_know_the_command_in_the_pod(line, place):
    words = line.partition(" -- ")[2].split()
    help_of = run(place, *words[:2], "--help")
    assert help_of.returncode == 0, help_of.stderr
    if words[1] == "ctl":
        assert words[2] in help_of.stdout


def test_its_labels_and_names_are_those_of_the_chart():
    names = {it["metadata"]["name"] for it in of_kind("DaemonSet", "one-target")}
    assert set(re.findall(r"delete daemonset (\S+)", GUIDE)) <= names
    chosen = set(re.findall(r"app\.kubernetes\.io/component=([a-z-]+)", GUIDE))
    labels = {it["metadata"]["labels"]["app.kubernetes.io/component"] for it in of_kind("DaemonSet", "one-target")}
    assert chosen and chosen <= labels
    wanted = {tuple(it["spec"]["template"]["spec"]["nodeSelector"].items()) for it in of_kind("DaemonSet", "one-target")}
    assert {(("millrace", value),) for value in re.findall(r"label node \S+ millrace=(\w+)", GUIDE)} == wanted
