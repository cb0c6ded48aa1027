"""A whole life on the cluster of docs/lvs-dr.md, in this order: from nothing, through an upgrade under load, to nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cluster import LIVE, REAL
from snapshot import differences, snapshot

LAB = Path(os.environ.get("MILLRACE_LAB", "millrace-lab"))
SITE = "millrace.millrace.site"
HOSTS = (*LIVE, *REAL)


@pytest.fixture(scope="module")
def before(inventory, ansible, cluster):
    """How the hosts are before anything."""
    ansible.command("ansible", *[word for path in ansible.inventories for word in ("-i", str(path))], "-m", "ping", ",".join(HOSTS)).went_well()
    return {name: snapshot(cluster.machines[name]) for name in HOSTS}


def changes_since(before, cluster):
    return {name: found for name in HOSTS if (found := differences(before[name], snapshot(cluster.machines[name])))}


def test_check_mode_predicts_an_installation_and_makes_none(before, ansible, cluster, work):
    played = ansible.play(SITE, "--check", "--diff").went_well()
    assert all(played.counts("changed")[name] > 0 for name in HOSTS), played.text[-3000:]
    assert "+services = " in played.text
    assert not changes_since(before, cluster)
    assert not (work / "tls").exists()


def test_the_first_run_installs_everything(before, ansible, cluster):
    ansible.play(SITE, "--diff").went_well()
    for name in LIVE:
        assert cluster.machines[name].run("systemctl is-active millrace-copier@main") == "active"
    for name in REAL:
        assert cluster.machines[name].run("systemctl is-active millrace-router-agent millrace-interceptor") == "active\nactive"


def test_every_request_is_copied(cluster):
    for name in LIVE:
        cluster.load(LAB, name, ["one-request", "--count", "5", "--rate", "5"]).wait(60)
    loads = {name: cluster.load(LAB, name, ["keep-alive", "--seconds", "5", "--pause", "20"]) for name in LIVE}
    for name, load in loads.items():
        said, _ = load.communicate(timeout=60)
        assert load.returncode == 0, said
        report = cluster.settled(name)
        print(name, report["fidelity"], report["sessions"]["captured"], report["replicas"]["completed"], report["bytes"])
        assert report["fidelity"] == 1
        assert report["sessions"]["captured"] >= 13
        assert not report["replicas"]["aborted"] and not report["sessions"]["refused"]


def test_a_second_run_changes_nothing(ansible):
    played = ansible.play(SITE).went_well()
    assert played.counts("changed") == dict.fromkeys(HOSTS, 0) or not any(played.counts("changed").values()), played.text
