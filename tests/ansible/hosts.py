"""Hosts as namespaces: plain ones, and machines that are a Debian with its own systemd as process 1.

A machine has its own processes, mounts, network, name and control groups over an overlay of one shared file system, so
what a roll-out does to it is what it does to a host, kernel modules and the boot loader aside. Needs root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# $1 is the root of the machine, $2 its name.
BOOT = """
hostname "$2"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir -p dev/pts dev/shm old
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . old
umount -l old
rmdir old
exec env -i container=millrace-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --log-target=journal
"""


class Host:
    """A network namespace, which lives as long as a process in it."""

    enter = ("-n",)

    def __init__(self, name: str):
        self.name = name
        self.process = subprocess.Popen(["unshare", "--net", "--kill-child", "--fork", "sleep", "3600"], start_new_session=True)
        self.pid = child_of(self.process.pid)
        self.run("ip link set lo up; sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")

    def command(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), *self.enter, "--", "env", "-i", f"PATH={PATH}", "LC_ALL=C", *words]

    def run(self, script: str, check: bool = True, seconds: float = 60) -> str:
        """What a shell on the host says of it."""
        done = subprocess.run(
            self.command("sh", "-euc", script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {script}: exit code {done.returncode}: {done.stdout}")
        return done.stdout.strip()

    def start(self, *words: str, **options) -> subprocess.Popen:
        return subprocess.Popen(self.command(*words), text=True, **options)

    def mac(self) -> str:
        return json.loads(self.run("ip -json link show eth0"))[0]["address"]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Machine(Host):
    """A Debian with its own systemd."""

    enter = ("-m", "-p", "-n", "-u", "-i", "-C")

    def __init__(self, name: str, lower: Path, home: Path):
        self.name = name
        self.home = home
        shutil.rmtree(home, ignore_errors=True)
        for part in ("upper", "work", "root"):
            (home / part).mkdir(parents=True)
        (home / "lower").symlink_to(lower)
        (home / "upper/etc").mkdir()
        (home / "upper/etc/hostname").write_text(name + "\n")
        (home / "upper/etc/machine-id").write_text("")
        unified = Path("/sys/fs/cgroup/unified")
        self.group = (unified if unified.is_dir() else Path("/sys/fs/cgroup")) / f"millrace-{os.getpid()}-{name}"
        self.group.mkdir()
        self.process = subprocess.Popen(
            ["sh", "-euc", 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"', "join", str(self.group)]
            + ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]
            + ["sh", "-euc", BOOT, "boot", str(home), name],
            stdin=subprocess.DEVNULL,
            stdout=(home / "boot.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = child_of(self.process.pid)

    def wait_until_up(self) -> None:
        for _ in range(200):
            if self.process.poll() is not None:
                break
            if self.run("systemctl is-system-running", check=False) in ("running", "degraded"):
                self.run("ip link set lo up")
                return
            time.sleep(0.2)
        raise AssertionError(f"{self.name} does not start: {(self.home / 'boot.log').read_text()[-500:]}")

    def stop(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        for _ in range(50):
            groups = [Path(path) for path, _, _ in os.walk(self.group, topdown=False)]
            try:
                for group in groups:
                    group.rmdir()
                break
            except OSError:
                time.sleep(0.1)
        shutil.rmtree(self.home, ignore_errors=True)


def child_of(pid: int) -> int:
    """The only child of a process, once it has one."""
    for _ in range(100):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.05)
    raise AssertionError(f"process {pid} has no child")


def plug(host: Host, address: str, switch: Host, bridge: str) -> None:
    """A cable from eth0 of the host to a bridge of the switch."""
    port = f"p-{host.name}"
    subprocess.run(
        ["ip", "link", "add", port, "netns", str(switch.pid), "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)], check=True
    )
    switch.run(f"ip link set {port} master {bridge} up")
    host.run(f"ip address add {address} dev eth0; ip link set eth0 up")
