"""Daemons with what a pod has and nothing else: its configuration, its capabilities, a root without the others, a file
system and kernel settings that are read-only. A request is copied in a network of namespaces, and the kill switch is tried.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from chart import PROGRAMS, configurations, container, pods
from test_configs import TLS, certificates  # noqa: F401

SCENARIO = "one-target"
# So that the end of a lease is seen.
SETS = ("routerAgent.config.grace=3", "copier.config.grace=1")

pytestmark = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="NOT TRIED: needs root")

# client --- router === live, target
NETWORK = """
ip -n {n}router link add br0 type bridge
ip -n {n}router addr add 198.18.2.1/24 dev br0
ip -n {n}router link set br0 up
ip -n {n}router link add c0 type veth peer name eth0 netns {n}client
ip -n {n}router addr add 198.18.1.1/24 dev c0
ip -n {n}router link set c0 up
ip netns exec {n}router sysctl -qw net.ipv4.ip_forward=1
ip -n {n}client addr add 198.18.1.10/24 dev eth0
ip -n {n}client link set eth0 up
ip -n {n}client route add default via 198.18.1.1
ip -n {n}router link add live0 type veth peer name eth0 netns {n}live
ip -n {n}router link set live0 master br0 up
ip -n {n}live addr add 198.18.2.10/24 dev eth0
ip -n {n}live link set eth0 up
ip -n {n}live route add default via 198.18.2.1
ip -n {n}router link add target0 type veth peer name eth0 netns {n}target
ip -n {n}router link set target0 master br0 up
ip -n {n}target addr add 198.18.2.20/24 dev eth0
ip -n {n}target link set eth0 up
ip -n {n}target route add default via 198.18.2.1
"""

# The mounts of a pod, then its capabilities.
POD = """
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/millrace && mount --bind {run} /run/millrace
mount --bind / /mnt && mount -o remount,bind,ro /mnt
mount --rbind /proc /mnt/proc && mount --rbind /sys /mnt/sys && mount --rbind /run /mnt/run && mount --rbind /dev /mnt/dev
mount --bind {programs} /mnt{programs} && mount --bind {files} /mnt{files}
mount -o remount,bind,ro /mnt{programs} && mount -o remount,bind,ro /mnt{files}
mount --bind /mnt/proc/sys /mnt/proc/sys && mount -o remount,bind,ro /mnt/proc/sys
exec chroot /mnt setpriv --no-new-privs --bounding-set=-all,{capabilities} --inh-caps=-all \\
    {programs}/millrace-{role} {arguments}
"""


class World:
    """Namespaces, and the processes in them."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.names = f"millrace-helm-{os.getpid()}-"
        self.processes = []
        self.hosts = ("router", "client", "live", "target")
        for host in self.hosts:
            subprocess.run(["ip", "netns", "add", self.names + host], check=True)
            subprocess.run(["ip", "-n", self.names + host, "link", "set", "lo", "up"], check=True)
        for line in NETWORK.strip().format(n=self.names).splitlines():
            subprocess.run(line.split(), check=True)

    def start(self, host: str, name: str, *command: str) -> subprocess.Popen:
        log = (self.directory / f"{name}.log").open("w")
        words = ["ip", "netns", "exec", self.names + host, *map(str, command)]
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd="/")
        self.processes.append(process)
        return process

    def pod(self, host: str, role: str, capabilities: list[str] | None = None, checks: bool = False) -> subprocess.Popen:
        """A daemon with the capabilities of its pod, or others; or what `helm test` runs in its place. Its /run/millrace is
        there for the next pod, too."""
        found = container(role, SCENARIO, *SETS)
        if checks:
            [spec] = [spec for name, spec in pods(SCENARIO, *SETS) if name == f"millrace-{role}-check-0"]
            [found] = spec["containers"]
        if capabilities is None:
            capabilities = found["securityContext"]["capabilities"]["add"]
        run = self.directory / f"run-{role}"
        run.mkdir(exist_ok=True)
        script = POD.format(
            programs=PROGRAMS.resolve(),
            files=self.directory,
            role=role,
            run=run,
            arguments=" ".join(found["args"]).replace("/etc/millrace/config", str(self.directory)),
            capabilities=",".join(f"+{name.lower()}" for name in capabilities),
        )
        name = f"{role}-check" if checks else role
        return self.start(host, name, "unshare", "--mount", "sh", "-ec", script)

    def exec(self, pod: subprocess.Popen, *command: str) -> str:
        """As `kubectl exec`."""
        words = ["nsenter", "-t", str(pod.pid), "--mount", "--net", "--root", *map(str, command)]
        return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout

    def diverts(self) -> bool:
        return "36524" in self.run("target", "ip", "rule", "show")

    def run(self, host: str, *command: str) -> str:
        words = ["ip", "netns", "exec", self.names + host, *map(str, command)]
        return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout

    def get(self, host: str, url: str) -> str:
        return self.run(host, "curl", "-s", "-m", "5", url)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def end(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", self.names + host], check=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory, certificates):  # noqa: F811
    directory = tmp_path_factory.mktemp("files")
    for role, text in configurations(SCENARIO, *SETS).items():
        (directory / f"{role}.toml").write_text(text.replace(TLS, str(directory / "tls")))
    mount_secret(directory / "tls", certificates, "first")
    world = World(directory)
    yield world
    world.end()


def mount_secret(place: Path, certificates: Path, version: str):  # noqa: F811
    """As the kubelet puts files of a Secret into a volume, and changes all of them at once."""
    content = place / f"..{version}"
    content.mkdir(parents=True)
    for file in certificates.glob("*.pem"):
        (content / file.name).write_bytes(file.read_bytes())
        (content / file.name).chmod(0o400)
        if not (place / file.name).is_symlink():
            (place / file.name).symlink_to(f"..data/{file.name}")
    (place / "..new").symlink_to(content.name)
    (place / "..new").rename(place / "..data")


def until(what, seconds=30):
    """Waits until something is true, and gives it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.2)
    return found


def ready(world: World, host: str, port: int):
    assert until(lambda: world.get(host, f"http://127.0.0.1:{port}/healthz")) == "ok\n"
    until(lambda: world.get(host, f"http://127.0.0.1:{port}/readyz").startswith("ready"))


def kept(world: World, host: str, port: int) -> set[str]:
    status = json.loads(world.get(host, f"http://127.0.0.1:{port}/status"))
    return set(status["privileges"]["capabilities"])


@pytest.fixture(scope="module")
def target(world):
    """Live and test service, and the pods of the target's node."""
    serve = ["python3", "-u", "-m", "http.server", "-d", "/usr/share/doc/base-files"]
    world.start("live", "live-service", *serve, "80")
    world.start("target", "test-service", *serve, "8080")
    pods = [world.pod("target", role) for role in ("router-agent", "interceptor")]
    ready(world, "target", 36532)
    ready(world, "target", 36531)
    return pods


@pytest.mark.parametrize(("role", "host"), [("copier", "live"), ("interceptor", "target"), ("router-agent", "target")])
def test_what_helm_test_runs_finds_nothing_wrong(role, host, world, target):
    check = world.pod(host, role, checks=True)
    assert check.wait(60) == 0, world.log(f"{role}-check")
    assert "checks: " in world.log(f"{role}-check")


def test_a_request_is_copied_and_the_kill_switch_takes_the_routes_away(world, target):
    copier = world.pod("live", "copier")
    ready(world, "live", 36530)

    def copied():
        assert world.get("client", "http://198.18.2.10/copyright")
        return "GET /copyright" in world.log("test-service")

    until(copied)
    assert kept(world, "live", 36530) == {"CAP_NET_RAW"}
    assert kept(world, "target", 36531) == {"CAP_NET_RAW"}
    assert kept(world, "target", 36532) == {"CAP_NET_ADMIN", "CAP_NET_RAW"}
    assert "start with CAP_NET_ADMIN" not in world.log("copier"), "the buffers have their size"
    assert world.diverts()

    program = PROGRAMS.resolve() / "millrace-copier"
    assert world.exec(copier, program, "ctl", "pause")
    until(lambda: "pause" in world.exec(copier, program, "status"))

    # What ends the DaemonSet of the copiers.
    copier.send_signal(signal.SIGTERM)
    assert copier.wait(20) == 0, world.log("copier")
    until(lambda: not world.diverts())
    assert "millrace0" not in world.run("target", "ip", "-br", "link")
    assert world.get("client", "http://198.18.2.10/copyright")


def test_an_agent_that_is_installed_again_takes_away_what_an_early_removal_left(world, target):
    copier = world.pod("live", "copier")
    ready(world, "live", 36530)
    until(world.diverts)
    agent, _ = target
    for pod in (agent, copier):
        pod.send_signal(signal.SIGTERM)
    for pod in (agent, copier):
        assert pod.wait(20) == 0
    # Longer than the lease.
    time.sleep(4)
    assert world.diverts(), "nobody is there to take it away"
    world.pod("target", "router-agent")
    until(lambda: not world.diverts())


def test_a_changed_secret_is_used_without_a_restart(world, target, certificates, tmp_path):  # noqa: F811
    def ends():
        return json.loads(world.get("target", "http://127.0.0.1:36531/status"))["certificate"]["not_after"]

    before = ends()
    for file in ("ca.pem", "ca-key.pem"):
        (tmp_path / file).write_bytes((certificates / file).read_bytes())
    command = [PROGRAMS / "millrace-copier", "certs", "--dir", tmp_path, "--days", "30"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    mount_secret(world.directory / "tls", tmp_path, "second")
    until(lambda: ends() < before)


def test_without_its_capability_a_daemon_would_not_start(world):
    process = world.pod("live", "copier", capabilities=["NET_ADMIN"])
    assert process.wait(20) == 1
    assert "CAP_NET_RAW" in world.log("copier"), world.log("copier")


def test_without_the_other_one_its_buffers_would_be_small(world):
    process = world.pod("live", "copier", capabilities=["NET_RAW"])
    until(lambda: "start with CAP_NET_ADMIN" in world.log("copier"))
    process.send_signal(signal.SIGTERM)
    process.wait(20)
