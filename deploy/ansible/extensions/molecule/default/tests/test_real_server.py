"""What a roll-out has made of a real server."""

import json

import pytest

testinfra_hosts = ["ansible://millrace_router_agents"]
DAEMONS = ["router-agent", "interceptor"]


@pytest.mark.parametrize("daemon", DAEMONS)
def test_its_daemons_run_and_will_run_after_the_next_start(host, daemon):
    service = host.service(f"millrace-{daemon}")
    assert service.is_running and service.is_enabled


@pytest.mark.parametrize("daemon", DAEMONS)
def test_only_millrace_reads_configurations_and_keys(host, daemon):
    for path in (f"/etc/millrace/{daemon}.toml", f"/etc/millrace/tls/{daemon}-key.pem"):
        file = host.file(path)
        assert (file.user, file.group, file.mode) == ("root", "millrace", 0o640)


def test_answers_to_copies_are_diverted(host):
    (status,) = json.loads(host.check_output("millrace-router-agent status --json"))
    assert status["agent"]["diverted"] and not status["agent"]["unsound"]


def test_no_copier_runs_here(host):
    assert not host.run("systemctl list-units --plain --no-legend 'millrace-copier@*'").stdout
