"""Hosts as namespaces, with the addresses of the guides. Needs root.

    client ── router ── live, target, assistant
    198.18.1.0/24     198.18.2.0/24
    2001:db8:1::/64   2001:db8:2::/64

A host has a network, /etc, /var, /run and a home of its own, so that a guide may write where it says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("PROGRAMS", ROOT / "target/debug")).resolve()
PATH = f"{PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLIENTS = [f"198.18.1.{last}" for last in range(10, 18)]
CLIENTS6 = [f"2001:db8:1::{last}" for last in range(10, 18)]
# The last part of their addresses.
SERVERS = {"live": 10, "target": 20, "assistant": 30}
ADMIN = {"millrace-copier": 36530, "millrace-interceptor": 36531, "millrace-router-agent": 36532}

# $1 is the directory of the host, $2 its name.
BOOT = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
for folder in etc var; do
    mkdir -p "$1/$folder/upper" "$1/$folder/work"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$1/$folder/upper,workdir=$1/$folder/work" "/$folder"
done
mount -t tmpfs tmpfs /run
mount -t sysfs sysfs /sys
hostname "$2"
mkdir "$1/home"
ip link set lo up
exec sleep 3600
"""


def eventually(what: str, holds, seconds: float = 30):
    """What `holds` gives, once it is true."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)


class Host:
    """Ends, with all that runs on it, by `stop`."""

    def __init__(self, name: str):
        self.name = name
        self.directory = tempfile.TemporaryDirectory(prefix=f"millrace-guide-{name}-")
        self.home = f"{self.directory.name}/home"
        self.running: list[Running] = []
        self.environment: dict[str, str] = {}
        words = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.process = subprocess.Popen([*words, "sh", "-euc", BOOT, "boot", self.directory.name, name])
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.pid = int(eventually("a namespace", children.read_text).split()[0])
        eventually("a host", lambda: self.run(f"test -d {self.home} && ip link show lo | grep -q UP && echo up", False, "/"))

    def words(self, script: str, folder: str | None = None) -> list[str]:
        into = ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-p", "--", "env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8"]
        into += [f"{name}={value}" for name, value in self.environment.items()]
        return [*into, "bash", "-euc", f"cd {folder or self.home}\n{script}"]

    def run(self, script: str, check: bool = True, folder: str | None = None, seconds: float = 60) -> str:
        """What a shell says of it, in the host's home."""
        done = subprocess.run(
            self.words(script, folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode and not check:
            return ""
        assert done.returncode == 0, f"{self.name}: {script}: exit code {done.returncode}: {done.stdout}"
        return done.stdout.strip()

    def start(self, command: str) -> Running:
        running = Running(self, command)
        self.running.append(running)
        return running

    def stop(self) -> None:
        """The first process of the host is the parent of all others there: they end with it."""
        self.process.kill()
        self.process.wait()
        for running in self.running:
            running.process.wait()
            running.output.close()
        self.directory.cleanup()


class Running:
    """A command in a terminal of its own."""

    def __init__(self, host: Host, command: str):
        self.command = command
        self.output = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            host.words(f"echo $$ >&2; exec {command}"),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.host = host

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read().partition("\n")[2]

    def interrupt(self, seconds: float = 40) -> int:
        """Ctrl-C; gives the exit code."""
        self.output.seek(0)
        pid = self.output.readline().strip()
        self.host.run(f"kill -INT {pid}")
        return self.process.wait(seconds)

    def alive(self) -> bool:
        return self.process.poll() is None


def plug(host: Host, router: Host, bridge: str, *addresses: str) -> None:
    """A cable from eth0 of the host to a bridge of the router."""
    port = f"p-{host.name}"
    words = ["ip", "link", "add", port, "netns", str(router.pid), "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)]
    subprocess.run(words, check=True)
    router.run(f"ip link set {port} master {bridge} up")
    for address in addresses:
        host.run(f"ip address add {address} dev eth0{' nodad' if ':' in address else ''}")
    host.run("ip link set eth0 up")


class Stage:
    """The hosts. The target answers clients by way of the router, as before anybody follows a guide."""

    def __init__(self):
        self.hosts: dict[str, Host] = {}
        try:
            self.build()
        except BaseException:
            self.close()
            raise

    def build(self) -> None:
        for name in self.others():
            self.hosts[name] = Host(name)
        router, client = self.hosts["router"], self.hosts["client"]
        for number, bridge in ((1, "clients"), (2, "servers")):
            router.run(
                f"ip link add {bridge} type bridge; ip address add 198.18.{number}.1/24 dev {bridge}; "
                f"ip address add 2001:db8:{number}::1/64 dev {bridge} nodad; ip link set {bridge} up"
            )
        router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        plug(client, router, "clients", *[f"{it}/24" for it in CLIENTS], *[f"{it}/64" for it in CLIENTS6])
        client.run("ip route add default via 198.18.1.1; ip -6 route add default via 2001:db8:1::1")
        for name, last in SERVERS.items():
            if name in self.hosts:
                host = self.hosts[name]
                plug(host, router, "servers", f"198.18.2.{last}/24", f"2001:db8:2::{last}/64")
                host.run("ip route add default via 198.18.2.1; ip -6 route add default via 2001:db8:2::1")

    def others(self) -> tuple[str, ...]:
        """Hosts that are namespaces and no more."""
        return ("router", "client", *SERVERS)

    def serve(self, host: str, *ports: int) -> None:
        """Services that answer, and note the hash of what each connection has sent."""
        listen = " ".join(f"--http {port}" for port in ports)
        self.hosts[host].start(f"millrace-lab recorder {listen} --out service.jsonl")
        eventually("a service", lambda: self.hosts[host].run(f"ss -Hltn sport = :{ports[-1]}", False))

    def streams(self, host: str) -> list[tuple]:
        """What the connections of a host's services have sent, sorted."""
        records = [json.loads(line) for line in self.hosts[host].run("cat service.jsonl").splitlines()]
        return sorted((it["proto"], it["bytes"], it["hash"]) for it in records if it["bytes"])

    def load(self, to: str, count: int = 40) -> None:
        """Clients send requests, and get their answers."""
        clients = CLIENTS6 if to.startswith("[") else CLIENTS
        said = self.hosts["client"].run(f"millrace-lab load --from {','.join(clients)} one-request {to} --count {count} --rate 40")
        summary = json.loads(said)
        assert summary["errors"] == 0, said

    def close(self) -> None:
        for host in self.hosts.values():
            host.stop()


def interrupted(*_) -> None:
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, interrupted)
