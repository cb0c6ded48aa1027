"""The chart as the tests see it: rendered by helm, read as YAML."""

import functools
import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/millrace"
HELM = os.environ.get("HELM", "helm")
# Where the daemons were built.
PROGRAMS = Path(os.environ.get("PROGRAMS", ROOT / "target/debug"))
SCENARIOS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
ROLES = {"copier": "copier", "interceptor": "interceptor", "routerAgent": "router-agent"}


def run_helm(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([HELM, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def values_file(scenario: str) -> Path:
    return CHART / "ci" / f"{scenario}-values.yaml"


def attempt(scenario: str, *sets: str) -> subprocess.CompletedProcess:
    """Renders a scenario with `--set-json KEY=VALUE` upon it."""
    more = [word for it in sets for word in ("--set-json", it)]
    return run_helm("template", "millrace", CHART, "-n", "millrace", "-f", values_file(scenario), *more)


@functools.lru_cache(maxsize=None)
def text(scenario: str, *sets: str) -> str:
    done = attempt(scenario, *sets)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifests(scenario: str, *sets: str) -> list[dict]:
    return [it for it in yaml.safe_load_all(text(scenario, *sets)) if it]


def of_kind(kind: str, scenario: str, *sets: str) -> list[dict]:
    return [it for it in manifests(scenario, *sets) if it["kind"] == kind]


def daemon_set(role: str, scenario: str, *sets: str) -> dict:
    found = [it for it in of_kind("DaemonSet", scenario, *sets) if component(it) == role]
    assert len(found) == 1, f"{role} in {scenario}: {len(found)}"
    return found[0]


def container(role: str, scenario: str, *sets: str) -> dict:
    return daemon_set(role, scenario, *sets)["spec"]["template"]["spec"]["containers"][0]


def component(manifest: dict) -> str | None:
    return manifest["metadata"].get("labels", {}).get("app.kubernetes.io/component")


def configurations(scenario: str, *sets: str) -> dict[str, str]:
    """The configuration file of each role that runs."""
    maps = {component(it): it["data"] for it in of_kind("ConfigMap", scenario, *sets)}
    return {role: data[f"{role}.toml"] for role, data in maps.items() if role}


def pods(scenario: str, *sets: str) -> list[tuple[str, dict]]:
    """Name and specification of each pod: those of DaemonSets, and those of tests."""
    sets_ = [(it["metadata"]["name"], it["spec"]["template"]["spec"]) for it in of_kind("DaemonSet", scenario, *sets)]
    return sets_ + [(it["metadata"]["name"], it["spec"]) for it in of_kind("Pod", scenario, *sets)]
