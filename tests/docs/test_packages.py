"""docs/installing.md and docs/systemd.md, followed on a target and a live server that have a systemd of their own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from guide import blocks
from hosts import PROGRAMS, ROOT, Host, Stage, eventually
from machines import Machine

PACKAGES = Path(os.environ.get("MILLRACE_OUT", ROOT / "target/packages"))
DEB, NEWER = "millrace_0.1.0_amd64.deb", "millrace_0.2.0_amd64.deb"
STATIC = "millrace-0.1.0-x86_64-linux-musl.tar.gz"
# Commands of the guides that are not run here, and where else.
NOT_HERE = {
    "podman load": "deploy/packages/test/image.sh starts the image in its own way",
    "podman run": "the same",
    "make packages": "what is installed here was made by it",
    "make release": "the static programs were made by it",
    "make test-packages": "is a test itself",
    "systemctl edit": "asks for an editor",
}


def released(name: str) -> Path:
    """A file of a release, which takes long to make."""
    path = PACKAGES / name
    if not path.exists():
        said = f"{path} is missing: make packages, or make release, makes it"
        assert not os.environ.get("CI"), said
        raise unittest.SkipTest(said)
    return path


class Network(Stage):
    """The router and the clients of a stage, and machines."""

    def build(self) -> None:
        for name in ("target", "live"):
            self.hosts[name] = Machine(name)
        super().build()

    def others(self) -> tuple[str, ...]:
        return ("router", "client")


class Packages(unittest.TestCase):
    def setUp(self):
        self.followed: list[str] = []

    def follow(self, block, only: tuple[str, ...] = ("target", "live")) -> None:
        """Runs a block on its host, or where it is for any on all; a question is answered with yes."""
        hosts = only if block.where == "any" else (block.where,)
        for host in hosts:
            for command, _ in block.commands():
                print(f"    {host}: {command}", flush=True)
                said = self.hosts[host].run(f"exec 3< <(yes); export DEBIAN_FRONTEND=noninteractive; {command} <&3", seconds=120)
                self.followed.append(command)
        self.said = said

    def machines(self) -> Stage:
        stage = Network()
        self.addCleanup(stage.close)
        self.hosts: dict[str, Host] = stage.hosts
        return stage

    def test_package(self):
        deb = released(DEB)
        stage = self.machines()
        found = [it for it in blocks("docs/installing.md") if it.language == "sh"]
        checksums, install, upgrade, on_target, on_live, back, removal, *_ = found
        self.assertEqual([it.where for it in (checksums, install, upgrade, back, removal)], ["any"] * 5)
        under_systemd = blocks("docs/systemd.md")
        with tempfile.TemporaryDirectory() as work:
            newer = self.next_version(deb, Path(work))
            sums = subprocess.run(["sha256sum", DEB], cwd=deb.parent, check=True, capture_output=True, text=True).stdout
            certs = self.certificates(Path(work))
            for name in ("target", "live"):
                self.hosts[name].give(deb, f"root/{DEB}")
                self.hosts[name].give(newer, f"root/{NEWER}")
                self.hosts[name].write("/root/SHA256SUMS", sums)
            self.follow(checksums)
            self.follow(install)
            for name, roles in (("target", ("router-agent", "interceptor")), ("live", ("copier",))):
                for role in roles:
                    self.certify(name, certs, role)
        # What listens, for copies and for clients.
        stage.serve("target", 8080)
        stage.serve("live", 80)

        for block in under_systemd:
            if block.language == "toml":
                path = block.lines[0].removeprefix("# ")
                host = "live" if "copier" in path else "target"
                self.hosts[host].write(path, "\n".join(block.lines) + "\n")
            elif block.where:
                self.follow(block)
        self.assertIn("active (running)", self.said)
        self.copies(stage, 40)

        self.follow(upgrade)
        self.follow(on_target)
        self.follow(on_live)
        self.versions("0.2.0")
        self.copies(stage, 80)
        self.follow(back)
        self.versions("0.1.0")
        self.follow(on_target)
        self.follow(on_live)
        self.copies(stage, 120)
        self.hosts["live"].run("systemctl stop millrace-copier@shop")
        report = json.loads(self.hosts["live"].run("cat /var/lib/millrace/shop.json"))
        self.assertEqual((report["fidelity"], report["replicas"]["aborted"]), (1, {}))
        self.assertEqual(stage.streams("live"), stage.streams("target"))

        self.follow(removal, ("live", "target"))
        for name in ("target", "live"):
            files = self.hosts[name].run("ls -d /etc/millrace /var/lib/millrace /usr/bin/millrace-* 2>/dev/null || true")
            left = files + self.hosts[name].run("getent passwd millrace || true")
            self.assertEqual(left, "")
        rules = self.hosts["target"].run("ip rule list; nft list tables; ip link")
        self.assertNotIn("millrace", rules)

    def test_static_programs(self):
        archive = released(STATIC)
        self.machines()
        [block] = [it for it in blocks("docs/installing.md") if it.language == "sh" and it.lines[0].startswith("tar ")]
        live = self.hosts["live"]
        installed = "find /usr -xdev -type f | sort"
        before = live.run(installed)
        live.give(archive, f"root/{STATIC}")
        self.follow(block, ("live",))
        for program in ("millrace-copier", "millrace-interceptor", "millrace-router-agent"):
            self.assertIn("0.1.0", live.run(f"{program} --version"))
        self.assertIn("millrace", live.run("getent passwd millrace; stat -c %G /etc/millrace/tls"))
        live.run("systemctl cat millrace-copier@shop")
        # As the text below the block says.
        live.run("millrace-router-agent remove")
        live.run(f"tar -tzf {STATIC} | sed -n 's#^[^/]*/##p' | grep -v '/$' | (cd / && xargs rm)")
        self.assertEqual(live.run(installed), before)

    def test_no_command_is_left_out(self):
        for page in ("docs/installing.md", "docs/systemd.md"):
            for block in blocks(page):
                if block.language == "sh" and not block.where:
                    for command, _ in block.commands():
                        self.assertTrue(command.startswith(tuple(NOT_HERE)), f"{page}: {command} is neither followed nor excused")

    def next_version(self, deb: Path, work: Path) -> Path:
        """The same files as a later version."""
        subprocess.run(["dpkg-deb", "-R", deb, work / "newer"], check=True)
        control = work / "newer/DEBIAN/control"
        control.write_text(control.read_text().replace("\nVersion: 0.1.0\n", "\nVersion: 0.2.0\n"))
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", work / "newer", work / NEWER], check=True, capture_output=True)
        return work / NEWER

    def certificates(self, work: Path) -> Path:
        roles = [word for role in ("copier", "interceptor", "router-agent") for word in ("--for", f"{role}/shop")]
        subprocess.run([PROGRAMS / "millrace-copier", "certs", "--dir", work / "certs", *roles], check=True, capture_output=True)
        return work / "certs"

    def certify(self, name: str, certs: Path, role: str) -> None:
        """Step 1 of the guide."""
        folder = "/etc/millrace/tls"
        host = self.hosts[name]
        host.give(certs / "ca.pem", f"{folder[1:]}/ca.pem")
        host.give(certs / f"{role}-shop.pem", f"{folder[1:]}/{role}.pem")
        host.give(certs / f"{role}-shop-key.pem", f"{folder[1:]}/{role}-key.pem")
        host.run(f"chown root:millrace {folder}/{role}-key.pem; chmod 640 {folder}/{role}-key.pem")

    def copies(self, stage: Stage, count: int) -> None:
        """Another 40 requests are copied, whole."""
        self.hosts["live"].says("millrace-copier@shop", "")
        stage.load("198.18.2.10:80")
        self.hosts["live"].says("millrace-copier@shop", "copying 100% of")
        eventually("copies arrive", lambda: len(stage.streams("target")) == count)
        self.assertEqual(stage.streams("live"), stage.streams("target"))

    def versions(self, version: str) -> None:
        for name in ("target", "live"):
            self.assertEqual(self.hosts[name].run("dpkg-query -W -f '${Version}' millrace"), version)
