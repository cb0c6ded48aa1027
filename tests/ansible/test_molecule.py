"""The collection's molecule scenario, on hosts of the cluster."""

from __future__ import annotations

import os
import subprocess

import yaml
from cluster import REAL, VIP
from conftest import BIN, FORMS, SETTINGS, SOURCE
from snapshot import changes_since


def test_the_scenario_goes_through(before, ways, release, collections, cluster, work):
    services = {"services": [f"8080-{VIP}:8080"], "interceptors": [REAL["rs1"]], "router-agent": [REAL["rs1"]]}
    groups = {
        "millrace_copiers": {"hosts": {"live1": None}, "vars": {"millrace_copier_instances": {"main": services}}},
        "millrace_router_agents": {
            "hosts": {"rs1": None},
            "vars": {"millrace_router_agent_options": {"allow": [f"{VIP}:8080"], "pass-list": ["198.18.2.40"], "manage-sysctl": True}},
        },
        "millrace_interceptors": {"hosts": {"rs1": None}},
    }
    common = {"millrace_tls_directory": str(work / "molecule-tls"), "millrace_extra_packages": []}
    hosts = {name: {**ways[name], **release.variables(FORMS[name]), **common} for name in ("live1", "rs1")}
    inventory = work / "molecule.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    cluster.direct_to("rs1")
    done = subprocess.run(
        [str(BIN / "molecule"), "test"],
        cwd=SOURCE,
        env={
            **os.environ,
            **SETTINGS,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(work),
            "MOLECULE_EPHEMERAL_DIRECTORY": str(work / "molecule"),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "MILLRACE_HOSTS": str(inventory),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        check=False,
    )
    (work / "molecule.log").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert not changes_since(before, cluster)
    cluster.direct_to(*REAL)
