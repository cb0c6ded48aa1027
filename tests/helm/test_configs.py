"""The daemons read what is rendered. Exit code 64 would say that they do not."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from chart import PROGRAMS, ROLES, SCENARIOS, configurations, pods

TLS = "/etc/millrace/tls"
USAGE = 64


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        [PROGRAMS / "millrace-copier", "certs", "--dir", directory], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    return directory


def ask(role: str, text: str, environment: dict, directory: Path) -> subprocess.CompletedProcess:
    """Has a daemon read a configuration as in the pod, without running."""
    file = directory / f"{role}.toml"
    file.write_text(text)
    # The others have no check-config: the check that looks at the kernel alone comes after reading everything.
    words = {
        "copier": ["check-config", "--config", file],
        "interceptor": ["check", "--only", "kernel", "--config", file],
        "router-agent": ["--config", file, "check", "--only", "kernel"],
    }
    command = [PROGRAMS / f"millrace-{role}", *words[role]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def environment_of(role: str, scenario: str) -> dict:
    """As in the pod that checks the daemon, which is there with the kill switch, too."""
    [spec] = [spec for name, spec in pods(scenario) if name == f"millrace-{role}-check-0"]
    found = {it["name"]: it.get("value", "127.0.0.1") for it in spec["containers"][0].get("env", [])}
    return {name: value.replace("$(HOST_IP)", "127.0.0.1") for name, value in found.items()}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_daemons_accept_their_configurations(scenario, certificates, tmp_path):
    texts = configurations(scenario)
    assert texts
    for role, text in texts.items():
        tomllib.loads(text)
        here = text.replace(TLS, str(certificates))
        environment = environment_of(role, scenario)
        if "CONSUL_CACERT" in environment:
            environment["CONSUL_CACERT"] = str(certificates / "ca.pem")
        done = ask(role, here, environment, tmp_path)
        assert done.returncode == 0, f"{role}: {done.returncode} {done.stdout}{done.stderr}"


@pytest.mark.parametrize("role", ROLES.values())
def test_what_follows_from_the_smallest_limits_is_accepted(role, certificates, tmp_path):
    key = next(key for key, name in ROLES.items() if name == role)
    text = configurations("one-target", f'{key}.resources.limits={{"cpu": "100m", "memory": "128Mi"}}')[role]
    done = ask(role, text.replace(TLS, str(certificates)), {}, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", ROLES.values())
def test_a_wrong_configuration_would_be_noticed(role, certificates, tmp_path):
    text = configurations("one-target")[role].replace(TLS, str(certificates))
    for wrong in ('nonsense = "1"\n', 'log-format = "loud"\n'):
        assert ask(role, text + wrong, {}, tmp_path).returncode == USAGE, wrong


@pytest.mark.parametrize("role", ROLES.values())
def test_a_certificate_of_another_role_would_be_noticed(role, certificates, tmp_path):
    other = "interceptor" if role != "interceptor" else "copier"
    for kind in ("", "-key"):
        shutil.copy(certificates / f"{other}{kind}.pem", tmp_path / f"{role}{kind}.pem")
    shutil.copy(certificates / "ca.pem", tmp_path)
    done = subprocess.run(
        [PROGRAMS / f"millrace-{role}", *command_of_certificate_check(role)],
        env={f"MILLRACE_{role.upper().replace('-', '_')}_{key}": f"{tmp_path}/{file}" for key, file in [
            ("CA", "ca.pem"), ("CERT", f"{role}.pem"), ("KEY", f"{role}-key.pem"),
        ]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert other in done.stdout + done.stderr


def command_of_certificate_check(role: str) -> list[str]:
    more = ["-x", "80-198.18.2.20:8080", "-s", "198.18.2.20"] if role == "copier" else []
    return ["check", "--only", "certificate", *more]
