"""The collection's form: what linters say, what is built, and that it speaks of the daemons as they are."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml
from conftest import BIN, EXAMPLE, HERE, ROOT, SOURCE

ROLES = {"copier": "copier", "interceptor": "interceptor", "router_agent": "router-agent"}


def said(*words: str, **environment: str) -> str:
    done = subprocess.run(
        words,
        cwd=SOURCE,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_yamllint_has_nothing_to_say():
    assert not said("yamllint", "-s", ".")


def test_ansible_lint_passes_its_production_profile(collections):
    text = said("ansible-lint", "--offline", "--nocolor", ANSIBLE_COLLECTIONS_PATH=str(collections))
    assert "0 failure(s), 0 warning(s)" in text and "'production' was required, and it passed" in text


def test_shellcheck_has_nothing_to_say():
    assert not said("shellcheck", "roles/common/files/standing.sh", str(HERE / "run.sh"))


def test_the_change_log_is_in_form():
    assert "ERROR" not in said("antsibull-changelog", "lint-changelog-yaml", "changelogs/changelog.yaml")


@pytest.mark.parametrize("playbook", sorted(path.stem for path in (SOURCE / "playbooks").glob("*.yml")))
def test_playbooks_are_understood(playbook, ansible):
    ansible.command("ansible-playbook", "-i", str(EXAMPLE), f"millrace.millrace.{playbook}", "--syntax-check").went_well()


@pytest.mark.parametrize("role", ["common", *ROLES])
def test_roles_are_documented(role, ansible):
    assert "millrace_" in ansible.command("ansible-doc", "-t", "role", f"millrace.millrace.{role}").went_well().text


@pytest.mark.parametrize("name", ["to_toml", "changed_options"])
def test_filters_are_documented(name, ansible):
    ansible.command("ansible-doc", "-t", "filter", f"millrace.millrace.{name}").went_well()


def test_the_built_collection_holds_the_units_of_the_repository(collections):
    built = collections / "ansible_collections/millrace/millrace/roles/common/files/systemd"
    units = {path.name: path for path in (ROOT / "deploy/systemd").glob("*.service")}
    units["sysusers.conf"] = ROOT / "deploy/systemd/sysusers.d/millrace.conf"
    assert {path.name for path in built.iterdir()} == set(units)
    for name, path in units.items():
        assert not (built / name).is_symlink()
        assert (built / name).read_bytes() == path.read_bytes()


# Options of a daemon that no role takes, and why.
ELSEWHERE = {
    "of the unit": {"daemon", "pid-file", "user", "control"},
    "said by millrace_tls": {"ca", "cert", "key", "insecure"},
    "for recordings": {"speed", "longest-pause", "asap", "repeat", "local", "local-net", "min-fidelity"},
    "passwords, which are in accounts-file": {"accounts"},
    "for TCPCopy's sake": {"lonely", "default-rtt", "table-size", "container"},
}


@pytest.mark.parametrize("role", ROLES)
def test_each_option_of_a_daemon_can_be_given(role):
    sample = (ROOT / f"deploy/config/{ROLES[role]}.toml").read_text()
    options = set(re.findall(r"^#([a-z-]+) = ", sample, re.MULTILINE))
    spec = yaml.safe_load((SOURCE / f"roles/{role}/vars/main.yml").read_text())[f"millrace_{role}_spec"]
    assert options - set().union(*ELSEWHERE.values()) == set(spec)


def test_the_example_has_two_live_hosts_a_director_and_three_real_servers(ansible):
    text = ansible.command("ansible-inventory", "-i", str(EXAMPLE), "--graph").went_well().text
    for name in ("live1", "live2", "director", "rs1", "rs2", "rs3"):
        assert f"--{name}" in text
