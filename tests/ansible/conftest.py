"""What the tests share: the collection as it is built and installed, and the cluster with an inventory for it.

run.sh makes what they stand on, and names it in the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from snapshot import snapshot

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SOURCE = ROOT / "deploy/ansible"
EXAMPLE = SOURCE / "examples/inventory"
# Of the virtual environment in which the tests run.
BIN = Path(sys.executable).parent
# What an operator may have in ansible.cfg, and what has no part in what is tried here: hosts are made anew under the same
# names, and the same work takes a third of the time.
SETTINGS = {
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_HOST_KEY_CHECKING": "False",
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=600s",
}


@dataclass
class Played:
    """What became of a playbook."""

    code: int
    text: str

    def counts(self, word: str) -> dict[str, int]:
        """A column of the recap, by host."""
        rows = re.findall(rf"^(\S+)\s+: ok=.*\b{word}=(\d+)", self.text, re.MULTILINE)
        return {host: int(count) for host, count in rows}

    def went_well(self) -> "Played":
        assert self.code == 0, self.text[-6000:]
        return self

    def failed(self) -> "Played":
        assert self.code != 0, self.text[-6000:]
        return self


class Ansible:
    """ansible-playbook with the installed collection."""

    def __init__(self, collections: Path, work: Path):
        self.work = work
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(work),
            "ANSIBLE_HOME": str(work / ".ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            **SETTINGS,
            "ANSIBLE_INJECT_FACT_VARS": "False",
            "ANSIBLE_LOCALHOST_WARNING": "False",
        }
        self.inventories: list[Path] = []

    def command(self, program: str, *words: str, seconds: float = 900) -> Played:
        done = subprocess.run(
            [str(BIN / program), *words],
            env=self.environment,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        with (self.work / "said.log").open("a") as log:
            log.write(f"$ {program} {' '.join(words)}\n{done.stdout}exit code {done.returncode}\n\n")
        return Played(done.returncode, done.stdout)

    def play(self, playbook: str, *words: str) -> Played:
        inventories = [word for path in self.inventories for word in ("-i", str(path))]
        return self.command("ansible-playbook", *inventories, playbook, *words)


@pytest.fixture(scope="session")
def work() -> Path:
    path = Path(os.environ["MILLRACE_ANSIBLE_WORK"]) / "run"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


@pytest.fixture(scope="session")
def collections(work: Path) -> Path:
    """The collection as operators get it: built, and installed from the file."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    for words in (
        ["build", "--output-path", str(work), str(SOURCE)],
        ["install", "--offline", "-p", str(work / "collections"), str(work / "millrace-millrace-0.1.0.tar.gz")],
    ):
        subprocess.run([str(BIN / "ansible-galaxy"), "collection", *words], env=environment, check=True, capture_output=True, text=True)
    return work / "collections"


@pytest.fixture(scope="session")
def ansible(collections: Path, work: Path) -> Ansible:
    return Ansible(collections, work)


@dataclass
class Release:
    """The same programs in the three forms that millrace_source takes."""

    version: str
    deb: Path
    archive: Path
    directory: Path

    def variables(self, form: str) -> dict[str, str]:
        path = getattr(self, form)
        variables = {"millrace_source": f"{path}/" if form == "directory" else str(path), "millrace_version": self.version}
        if form != "directory":
            variables["millrace_source_checksum"] = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            variables["millrace_source_checksum"] = ""
        return variables


def archive_of(programs: Path, path: Path) -> Path:
    """An archive laid out as that of a release."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for program in sorted(programs.glob("millrace-*")):
            archive.add(program, f"millrace/usr/bin/{program.name}")
    return path


@pytest.fixture(scope="session")
def release(work: Path) -> Release:
    """The release under test."""
    deb = Path(os.environ["MILLRACE_DEB"])
    programs = work / "first"
    programs.mkdir()
    subprocess.run(["dpkg-deb", "-x", str(deb), str(work / "unpacked")], check=True)
    for program in (work / "unpacked/usr/bin").iterdir():
        shutil.copy(program, programs)
    version = subprocess.run(["dpkg-deb", "-f", str(deb), "Version"], check=True, capture_output=True, text=True).stdout.strip()
    return Release(version, deb, archive_of(programs, work / "first.tar.gz"), programs)


@pytest.fixture(scope="session")
def next_release(work: Path, release: Release) -> Release:
    """The same with other bytes and a higher version."""
    programs = work / "second"
    shutil.copytree(release.directory, programs)
    for program in programs.iterdir():
        with program.open("ab") as file:
            file.write(b"next")
    unpacked = work / "unpacked-deb"
    subprocess.run(["dpkg-deb", "-R", str(release.deb), str(unpacked)], check=True)
    control = unpacked / "DEBIAN/control"
    version = release.version + "+next"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    for program in programs.iterdir():
        shutil.copy(program, unpacked / "usr/bin")
    deb = work / f"millrace_{version}_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(unpacked), str(deb)], check=True, capture_output=True)
    return Release(version, deb, archive_of(programs, work / "second.tar.gz"), programs)


# Which form a host gets: all of them are tried.
FORMS = {"live1": "deb", "live2": "directory", "rs1": "deb", "rs2": "deb", "rs3": "archive"}


@pytest.fixture(scope="session")
def ways(cluster, work: Path) -> dict[str, dict[str, str]]:
    """How each machine is reached: by real connections of ssh, through a server that begins inside it."""
    key = work / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    for machine in cluster.machines.values():
        machine.run(f"install -d -m 700 ~root/.ssh; echo '{key.with_suffix('.pub').read_text().strip()}' > ~root/.ssh/authorized_keys")
    return {
        name: {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ProxyCommand='"
            + " ".join(machine.command("/usr/sbin/sshd", "-i", "-o", "UsePAM=no"))
            + "'",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        for name, machine in cluster.machines.items()
    }


class Inventory:
    """The example's inventory, and one over it that says how the lab's hosts are reached."""

    def __init__(self, ansible: Ansible, ways: dict, work: Path):
        self.path = work / "lab/hosts.yml"
        self.path.parent.mkdir()
        self.hosts = {name: {**way, "millrace_tls_directory": str(work / "tls")} for name, way in ways.items()}
        self.leaving: list[str] = []
        ansible.inventories = [EXAMPLE, self.path]

    def use(self, release: Release) -> None:
        for name, form in FORMS.items():
            self.hosts[name].update(release.variables(form))
        self.write()

    def write(self) -> None:
        self.path.write_text(yaml.safe_dump({"all": {"hosts": self.hosts, "children": {"leaving": {"hosts": dict.fromkeys(self.leaving)}}}}))


@pytest.fixture(scope="session")
def cluster(work: Path):
    from cluster import Cluster

    cluster = Cluster(Path(os.environ["MILLRACE_ANSIBLE_BASE"]), work / "machines")
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def inventory(ansible: Ansible, ways, release: Release, work: Path) -> Inventory:
    inventory = Inventory(ansible, ways, work)
    inventory.use(release)
    return inventory


@pytest.fixture(scope="session")
def before(inventory, ansible: Ansible, cluster) -> dict[str, dict[str, list[str]]]:
    """How the machines are before anything, but for what a first connection leaves behind."""
    ansible.command("ansible", *[word for path in ansible.inventories for word in ("-i", str(path))], "-m", "ping", "all:!director").went_well()
    return {name: snapshot(machine) for name, machine in cluster.machines.items()}
