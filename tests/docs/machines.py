"""Hosts that are a Debian with its own systemd: those of the tests of the packages, on the network of a stage."""

from __future__ import annotations

import os
import subprocess

from hosts import PROGRAMS, ROOT, Host, eventually

WORK = ROOT / "target/packages-test"
# Lives as long as its standard input. $0 leads common.sh to the repository.
START = """
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/test/machine.sh"
work=$1; machine=$1/$2
make_machine "$machine"
trap stop_machine EXIT
start_machine "$machine"
echo "$init"
read -r _ || true
"""


class Machine(Host):
    """Is there, with the lab's program for service and load, until `stop`."""

    home = "/root"

    def __init__(self, name: str):
        self.name = name
        self.running = []
        WORK.mkdir(parents=True, exist_ok=True)
        self.path = WORK / f"guide-{name}"
        words = ["sh", "-euc", START, str(ROOT / "deploy/packages/guides"), str(WORK), self.path.name]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = int(self.process.stdout.readline() or 0)
        assert self.pid, f"{name} does not start: {(WORK / 'machine.log').read_text()}"
        self.give(PROGRAMS / "millrace-lab", "opt/millrace-lab")
        self.run("hostname " + name + "; ip link set lo up")

    def words(self, script: str, folder: str | None = None) -> list[str]:
        into = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-u", "-i", "-C", "--", "env", "-i"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt"
        return [*into, path, "HOME=/root", "LC_ALL=C.UTF-8", "bash", "-euc", f"cd {folder or self.home}\n{script}"]

    def give(self, file: str | os.PathLike, path: str) -> None:
        """Copies a file of this host to a path of the machine."""
        to = self.path / path
        to.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-L", "--", file, to], check=True)

    def write(self, path: str, text: str) -> None:
        (self.path / path.lstrip("/")).write_text(text)

    def property(self, unit: str, name: str) -> str:
        return self.run(f"systemctl show --value -p {name} {unit}")

    def says(self, unit: str, words: str) -> None:
        """Waits until systemd's status of a unit has these words."""
        try:
            eventually(f"{unit}: {words}", lambda: words in self.property(unit, "StatusText"))
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.run(f'systemctl status {unit} || true')}") from None

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)
        for running in self.running:
            running.process.wait(10)
            running.output.close()
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(self.path)], check=True)
