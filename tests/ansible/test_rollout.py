"""A whole life on the cluster of docs/lvs-dr.md, in this order: from nothing, through an upgrade under load, to nothing."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from cluster import CLIENTS, LIVE, REAL, VIP
from snapshot import changes_since, differences, snapshot

LAB = Path(os.environ.get("MILLRACE_LAB", "millrace-lab"))
SITE = "millrace.millrace.site"
HOSTS = (*LIVE, *REAL)
# Where it is of no account in which order hosts are done; else they are done one by one.
TOGETHER = ("-e", "millrace_serial=3")


def test_check_mode_predicts_an_installation_and_makes_none(before, ansible, cluster, work):
    played = ansible.play(SITE, "--check", "--diff", *TOGETHER).went_well()
    assert all(played.counts("changed")[name] > 0 for name in HOSTS), played.text[-3000:]
    assert "+services = " in played.text
    assert not changes_since(before, cluster)
    assert not (work / "tls").exists()


def test_the_first_run_installs_everything(before, ansible, cluster):
    ansible.play(SITE, "--diff", *TOGETHER).went_well()
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
    changed = ansible.play(SITE, *TOGETHER).went_well().counts("changed")
    assert {name: changed[name] for name in HOSTS} == dict.fromkeys(HOSTS, 0)


def processes(cluster) -> dict[tuple[str, str], str]:
    """Of each daemon its process and when that began."""
    ask = "systemctl show --value -p MainPID -p ExecMainStartTimestampMonotonic "
    units = {**dict.fromkeys(LIVE, ["millrace-copier@main"]), **dict.fromkeys(REAL, ["millrace-router-agent", "millrace-interceptor"])}
    return {(name, unit): cluster.machines[name].run(ask + unit) for name in HOSTS for unit in units[name]}


def test_nonsense_for_one_host_changes_none(ansible, cluster, inventory):
    running = processes(cluster)
    inventory.hosts["live2"]["millrace_copier_instances"] = {"main": {"services": ["8080-target.example.test:8080"]}}
    inventory.write()
    played = ansible.play(SITE).failed()
    assert "without host names" in played.text
    changed = played.counts("changed")
    assert {name: changed[name] for name in HOSTS} == dict.fromkeys(HOSTS, 0)
    assert processes(cluster) == running
    del inventory.hosts["live2"]["millrace_copier_instances"]
    inventory.write()


def copies_everything(cluster, name: str) -> dict:
    """What the copier of a live server counts for some more sessions."""
    due = cluster.settled(name)["replicas"]["completed"] + 20
    said, _ = cluster.load(LAB, name, ["one-request", "--count", "20", "--rate", "20"]).communicate(timeout=60)
    after = cluster.settled(name, due)
    assert after["replicas"]["completed"] == due, said
    assert after["fidelity"] == 1 and not after["replicas"]["aborted"]
    return after


def fails_at_rs2(ansible, cluster, inventory, options: dict[str, str], said: str, restarted: list[str]) -> None:
    """A new level of logs for all interceptors, and on rs2 alone options that stop the run there."""
    running = processes(cluster)
    config = cluster.machines["rs2"].run("cat /etc/millrace/interceptor.toml")
    level = next(level for level in ("debug", "trace") if level not in cluster.machines["rs1"].run("cat /etc/millrace/interceptor.toml"))
    for name in REAL:
        inventory.hosts[name]["millrace_interceptor_options"] = {"log-level": f"info,millrace_channel={level}"}
    inventory.hosts["rs2"]["millrace_interceptor_options"].update(options)
    inventory.write()
    played = ansible.play(SITE).failed()
    assert said in played.text
    assert {name for name, failed in played.counts("failed").items() if failed} == {"rs2"}
    now = processes(cluster)
    assert {key for key in now if now[key] != running[key]} == {(name, "millrace-interceptor") for name in restarted}
    assert cluster.machines["rs2"].run("cat /etc/millrace/interceptor.toml") == config
    for name in LIVE:
        copies_everything(cluster, name)
    for name in REAL:
        del inventory.hosts[name]["millrace_interceptor_options"]
    inventory.write()


def test_a_run_that_fails_half_way_leaves_every_host_working(ansible, cluster, inventory):
    # Only the daemon itself sees that this is no filter.
    fails_at_rs2(ansible, cluster, inventory, {"filter": "tcp prot 80"}, "failed to validate", ["rs1"])


def test_a_daemon_that_does_not_start_runs_again_as_before(ansible, cluster, inventory):
    # The router-agent listens there: this shows at the start alone.
    options = {"admin": "127.0.0.1:36526"}
    fails_at_rs2(ansible, cluster, inventory, options, "the configuration of before runs again", ["rs1", "rs2"])


def test_a_list_of_interceptors_is_reloaded_and_another_option_restarts(ansible, cluster, inventory):
    running = processes(cluster)["live1", "millrace-copier@main"]
    addresses = [f"{address}:36524" for address in REAL.values()]
    options = {"services": ["8080-198.18.2.50:8080"], "interceptors": addresses, "router-agent": list(REAL.values()), "report": "/var/lib/millrace/main.json"}
    inventory.hosts["live1"]["millrace_copier_instances"] = {"main": options}
    inventory.write()
    assert ansible.play(SITE, "--limit", "live1").went_well().counts("changed") == {"live1": 2}
    assert processes(cluster)["live1", "millrace-copier@main"] == running
    assert [link["address"] for link in cluster.status("live1")["interceptors"]] == addresses
    options["memory"] = "256"
    inventory.write()
    assert ansible.play(SITE, "--limit", "live1").went_well().counts("changed") == {"live1": 2}
    assert processes(cluster)["live1", "millrace-copier@main"] != running
    assert "memory = 256\n" in cluster.machines["live1"].run("cat /etc/millrace/copier-main.toml") + "\n"
    del inventory.hosts["live1"]["millrace_copier_instances"]
    inventory.write()
    ansible.play(SITE, "--limit", "live1").went_well()


def test_ramp_pause_and_resume(ansible, cluster):
    ansible.play("millrace.millrace.ramp", "-e", "millrace_intensity=50%").went_well()
    assert cluster.eventually("live1", lambda status: status["report"]["intensity"]["now"] == 0.5)
    ansible.play("millrace.millrace.ramp", "-e", "millrace_ramp=50%,100%").went_well()
    ansible.play("millrace.millrace.pause").went_well()
    assert cluster.eventually("live2", lambda status: status["report"]["intensity"]["mode"] == "paused")
    ansible.play("millrace.millrace.resume").went_well()
    assert cluster.eventually("live2", lambda status: status["report"]["intensity"]["mode"] == "running")
    assert "give one of" in ansible.play("millrace.millrace.ramp").failed().text


def test_an_upgrade_under_load_loses_no_session(ansible, cluster, inventory, next_release):
    inventory.use(next_release)
    running = processes(cluster)
    over = threading.Event()
    said = {name: [] for name in LIVE}

    def clients(name: str) -> None:
        while not over.is_set():
            load = cluster.load(LAB, name, ["keep-alive", "--seconds", "6", "--pause", "50"])
            said[name].append(load.communicate(timeout=60)[0])

    threads = [threading.Thread(target=clients, args=(name,)) for name in LIVE]
    for thread in threads:
        thread.start()
    try:
        ansible.play(SITE).went_well()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    now = processes(cluster)
    assert all(now[key] != running[key] for key in running)
    for name in LIVE:
        assert all(json.loads(text)["errors"] == 0 for text in said[name])
        # The copier before, whole; and the one that runs.
        for report in (json.loads(cluster.machines[name].run("cat /var/lib/millrace/main.json")), cluster.settled(name)):
            print(name, report["fidelity"], report["sessions"], report["replicas"])
            assert report["fidelity"] == 1
            assert report["replicas"]["completed"] == report["replicas"]["opened"] > 0
            assert not report["replicas"]["aborted"] and not report["sessions"]["refused"].keys() - {"draining"}
    for name in ("live1", "rs1", "rs2"):
        assert cluster.machines[name].run("dpkg-query -W -f '${Version}' millrace") == next_release.version


def test_a_real_server_that_copiers_use_is_not_removed(ansible, cluster):
    running = processes(cluster)
    played = ansible.play("millrace.millrace.remove", "--limit", "rs3").failed()
    assert "the router-agent serves copiers" in played.text and "live1" in played.text
    assert processes(cluster) == running
    for name in LIVE:
        copies_everything(cluster, name)


def test_a_real_server_leaves_while_copying_goes_on(before, ansible, cluster, inventory):
    cluster.direct_to("rs1", "rs2")
    inventory.leaving = ["rs3"]
    inventory.write()
    running = {name: processes(cluster)[name, "millrace-copier@main"] for name in LIVE}
    ansible.play(SITE, "--limit", "millrace_copiers").went_well()
    for name in LIVE:
        assert processes(cluster)[name, "millrace-copier@main"] == running[name]
        assert [link["address"] for link in cluster.status(name)["interceptors"]] == [f"{REAL[rs]}:36524" for rs in ("rs1", "rs2")]
    ansible.play("millrace.millrace.remove", "--limit", "rs3").went_well()
    assert not differences(before["rs3"], snapshot(cluster.machines["rs3"]))
    for name in LIVE:
        copies_everything(cluster, name)


def test_no_answer_to_a_copy_has_left_for_a_client(cluster):
    assert cluster.leaks() == 0


def test_removal_leaves_hosts_as_they_were(before, ansible, cluster):
    found = changes_since(before, cluster)
    assert found.keys() == set(HOSTS) - {"rs3"}
    ansible.play("millrace.millrace.remove", "--check", *TOGETHER).went_well()
    assert changes_since(before, cluster) == found
    ansible.play("millrace.millrace.remove").went_well()
    assert not changes_since(before, cluster)
    assert cluster.leaks() == 0
    changed = ansible.play("millrace.millrace.remove", *TOGETHER).went_well().counts("changed")
    assert not any(changed.values())


def test_answers_to_clients_would_have_been_counted(cluster):
    # Removed, nothing keeps the real servers from them: a client that asks the director itself is answered.
    cluster.client.run(f"{LAB} load --from {CLIENTS[0]} one-request {VIP}:8080 --count 1 --rate 1")
    assert cluster.leaks() > 0
