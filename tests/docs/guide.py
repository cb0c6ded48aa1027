"""A guide's commands, and an operator who follows them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from hosts import ADMIN, ROOT, Running, Stage, eventually

FENCED = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# A program that goes on until it is ended: `record`, or no word of a command at all.
# Before it may stand what leads into a container's network.
DAEMON = re.compile(r"(nsenter .* -n )?(millrace-(?:copier|interceptor|router-agent)) (?=record |-(?!.* check ))")


@dataclass
class Block:
    """What stands between fences; `where` names the host."""

    language: str
    where: str
    lines: list[str]

    def commands(self) -> list[tuple[str, str]]:
        """Each with its comment. A line that ends with a backslash goes on with the next."""
        lines = re.sub(r"\\\n *", "", "\n".join(self.lines)).splitlines()
        return [(command.rstrip(), note) for command, _, note in (it.partition(" # ") for it in lines if it and it[0] != "#")]


def blocks(page: str) -> list[Block]:
    """All blocks of a page."""
    found = FENCED.findall((ROOT / page).read_text())
    return [Block(language, info.strip(), [it[len(indent) :] for it in text.splitlines()]) for indent, language, info, text in found]


class Operator:
    """Follows a guide on the hosts of a stage."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self.terminals: dict[tuple[str, str], Running] = {}
        # What leads to where a daemon's admin port is, if it runs in a container's network.
        self.networks: dict[tuple[str, str], str] = {}
        self.said: dict[str, str] = {}

    def follow(self, block: Block) -> None:
        """Runs a block's commands. A daemon stays in a terminal of its own; what a comment promises must come."""
        for command, note in block.commands():
            print(f"    {block.where}: {command}", flush=True)
            if DAEMON.match(command):
                self.start(block.where, command)
            else:
                self.said[command] = self.run(block.where, command, note.strip())

    def run(self, where: str, command: str, note: str) -> str:
        host = self.stage.hosts[where]
        if command.startswith("sysctl net."):
            said = host.run(command)
            assert all(line.endswith("= 0") for line in said.splitlines()), said
            return said
        found = re.search(r"(?:^|[:：] ?)(ready|via [0-9.]+)$", note)
        promised = found[1] if found else ""
        said = []

        def holds() -> bool:
            said[:] = [host.run(command)]
            return promised in said[0].split("\n")[0]

        try:
            eventually(f"{command}: {promised}", holds)
        except AssertionError as error:
            logs = "\n".join(f"{it.command}: {it.said()}" for it in self.terminals.values())
            raise AssertionError(f"{error}: {said[0]}\n{logs}") from None
        return said[0]

    def start(self, where: str, command: str) -> None:
        network, program = DAEMON.match(command).groups(default="")
        host = self.stage.hosts[where]
        terminal = host.start(command)
        self.terminals[where, program] = terminal
        self.networks[where, program] = network
        if " record " not in command:
            alive = f"{network}curl -sf http://127.0.0.1:{ADMIN[program]}/healthz"
            try:
                eventually(command, lambda: not terminal.alive() or host.run(alive, False))
            except AssertionError as error:
                raise AssertionError(f"{error}: {terminal.said()}") from None
        assert terminal.alive(), f"{command}: {terminal.said()}"

    def end(self, where: str, program: str) -> str:
        """Ctrl-C; gives what it has said."""
        terminal = self.terminals.pop((where, program))
        code = terminal.interrupt()
        assert code == 0, f"{terminal.command}: exit code {code}: {terminal.said()}"
        return terminal.said()

    def report(self, host: str = "live") -> dict:
        network = self.networks.get((host, "millrace-copier"), "")
        return json.loads(self.stage.hosts[host].run(f"{network}curl -s http://127.0.0.1:36530/status"))["report"]

    def settled(self, sessions: int, host: str = "live") -> dict:
        """The report of a host's copier, once it has seen so many sessions, and nothing is open any more."""

        def done():
            report = self.report(host)
            return report["sessions"]["captured"] >= sessions and not report["replicas"]["open"] and report["fidelity"] == 1 and report

        try:
            return eventually("every copy ends, delivered", done)
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(self.report(host), indent=1)}") from None


def page_text(page: str) -> str:
    return Path(ROOT / page).read_text()
