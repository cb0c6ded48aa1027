"""docs/ansible.md, followed to the letter: its commands one by one, and between them what it tells the operator to change."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from cluster import LIVE, REAL
from conftest import BIN, ROOT, SETTINGS, SOURCE, Release
from snapshot import changes_since, differences, snapshot

LAB = Path(os.environ.get("MILLRACE_LAB", "millrace-lab"))
GUIDE = (ROOT / "docs/ansible.md").read_text()
COMMANDS = re.compile(r"^```sh (controller|live)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEB_HOSTS = ("live1", "live2", "rs1", "rs2")


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """Where commands are run, and the commands."""
    return [(where, commands.splitlines()) for where, commands in COMMANDS.findall(text)]


# By the number of the section.
BLOCKS = {int(text[0]): found for text in re.split(r"^## ", GUIDE, flags=re.MULTILINE) if (found := blocks(text))}


class Operator:
    """Who follows the guide, in a directory with the source, and with the collections that the guide installs."""

    def __init__(self, home: Path):
        self.home = home
        self.inventory = home / "inventory"
        self.followed: list[list[str]] = []
        home.mkdir()
        (home / "deploy").symlink_to(ROOT / "deploy")
        self.environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            **SETTINGS,
        }

    def follow(self, section: int, number: int) -> str:
        """Runs a block of the controller, and says what the last command of it has said."""
        where, commands = BLOCKS[section][number]
        assert where == "controller"
        self.followed.append(commands)
        for command in commands:
            said = self.run(command)
        return said

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-6000:]}"
        # A file beside the inventory that Ansible takes for an inventory, a variable that will be refused, and the like.
        # But for what check mode on a new host cannot know.
        expected = r"failed to look up (?:user|group) millrace\. Create"
        warnings = re.findall(rf"^\[WARNING\]: (?!{expected}).*(?:\n.*){{3}}", done.stdout, re.MULTILINE)
        assert not warnings, f"{command}: {warnings}"
        return done.stdout

    def change(self, name: str, **values) -> None:
        """Changes variables in a file of the inventory."""
        path = self.inventory / name
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))

    def use(self, release: Release) -> None:
        for name, form in (("debian", "deb"), ("redhat", "archive")):
            values = release.variables(form)
            self.change("group_vars/all.yml", millrace_version=values.pop("millrace_version"))
            self.change(f"group_vars/{name}.yml", **values)


@pytest.fixture(scope="module")
def operator(work) -> Operator:
    return Operator(work / "operator")


def versions(cluster) -> set[str]:
    return {cluster.machines[name].run("dpkg-query -W -f '${Version}' millrace") for name in DEB_HOSTS}


def copies(cluster) -> None:
    """Each live server copies what its clients send, whole."""
    for name in LIVE:
        due = cluster.settled(name)["replicas"]["completed"] + 20
        said, _ = cluster.load(LAB, name, ["one-request", "--count", "20", "--rate", "20"]).communicate(timeout=60)
        report = cluster.settled(name, due)
        assert report["replicas"]["completed"] == due, said
        assert report["fidelity"] == 1 and not report["replicas"]["aborted"]


def test_an_inventory_is_made(operator, ways, release):
    operator.follow(1, 0)
    operator.use(release)
    # How the lab's hosts are reached; others are reached by their address.
    (operator.inventory / "lab.yml").write_text(yaml.safe_dump({"all": {"hosts": ways}}))


def test_a_look_changes_nothing(before, operator, cluster):
    operator.follow(3, 0)
    assert not changes_since(before, cluster)


def test_the_first_request_is_copied(operator, cluster):
    operator.follow(3, 1)
    copies(cluster)
    ((where, commands),) = BLOCKS[3][2:]
    assert where == "live"
    operator.followed.append(commands)
    for name in LIVE:
        *_, fidelity = cluster.machines[name].run("\n".join(commands)).splitlines()
        assert float(fidelity) == 1


def test_the_certificates_lie_beside_the_inventory(operator):
    assert (operator.home / "millrace-tls/ca.pem").exists()


def test_how_much_is_copied_is_changed(operator, cluster):
    operator.follow(4, 0)
    for name in LIVE:
        assert cluster.eventually(name, lambda status: status["report"]["intensity"]["mode"] == "running")
        assert cluster.status(name)["report"]["intensity"]["now"] < 1
    operator.follow(4, 1)
    for name in LIVE:
        machine = cluster.machines[name]
        assert machine.run("systemctl is-active millrace-copier@main || true") == "inactive"


def test_an_upgrade_and_a_rollback(operator, cluster, release, next_release):
    for wanted in (next_release, release):
        operator.use(wanted)
        operator.follow(5, 0)
        assert versions(cluster) == {wanted.version}
        copies(cluster)


def test_a_real_server_is_taken_out(before, operator, cluster):
    cluster.direct_to("rs1", "rs2")
    hosts = yaml.safe_load((operator.inventory / "hosts.yml").read_text())
    hosts["all"]["children"]["leaving"]["hosts"] = {"rs3": None}
    (operator.inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    operator.follow(5, 1)
    assert not differences(before["rs3"], snapshot(cluster.machines["rs3"]))
    copies(cluster)
    for group in hosts["all"]["children"].values():
        group.get("hosts", {}).pop("rs3", None)
    (operator.inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    lab = yaml.safe_load((operator.inventory / "lab.yml").read_text())
    del lab["all"]["hosts"]["rs3"]
    (operator.inventory / "lab.yml").write_text(yaml.safe_dump(lab))


def test_everything_is_removed(before, operator, cluster):
    operator.follow(6, 0)
    assert not changes_since(before, cluster)
    assert cluster.leaks() == 0
    cluster.direct_to(*REAL)


def test_no_command_was_left_out(operator):
    assert {tuple(commands) for commands in operator.followed} == {tuple(commands) for _, commands in blocks(GUIDE)}


def test_the_readme_has_commands_of_the_guide():
    guide = [command for _, commands in blocks(GUIDE) for command in commands]
    readme = blocks((SOURCE / "README.md").read_text())
    assert readme
    assert {command for _, commands in readme for command in commands} <= set(guide)
