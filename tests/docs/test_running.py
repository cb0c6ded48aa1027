"""README.zh-CN.md, followed to the letter, and on what then runs the commands with which other pages look and steer.

The English README is followed by tests/integration/tests/lab/readme.rs.
"""

from __future__ import annotations

import json
import unittest

from guide import Operator, blocks
from hosts import Stage, eventually

SERVICE = "198.18.2.10:80"


class Running(unittest.TestCase):
    def setUp(self):
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        self.stage.serve("live", 80)
        self.stage.serve("target", 8080)

    def follow(self, page: str, first: int, last: int) -> None:
        for block in blocks(page)[first:last]:
            self.operator.follow(block)

    def commands(self, page: str, starting: str) -> list[tuple[str, str]]:
        """Of the block of a page whose first command starts so."""
        [found] = [it for it in blocks(page) if it.language == "sh" and it.lines[0].startswith(starting)]
        return found.commands()

    def on(self, host: str, command: str) -> str:
        print(f"    {host}: {command}", flush=True)
        return self.stage.hosts[host].run(command)

    def ends_well(self, sessions: int) -> None:
        report = self.operator.settled(sessions)
        self.assertEqual((report["replicas"]["completed"], report["replicas"]["aborted"]), (sessions, {}))
        self.operator.end("live", "millrace-copier")
        self.assertEqual(json.loads(self.stage.hosts["live"].run("cat report.json"))["fidelity"], 1)
        self.assertEqual(self.stage.streams("live"), self.stage.streams("target"))

    def test_two_hosts(self):
        readme = "README.zh-CN.md"
        self.assertEqual([it.where for it in blocks(readme)], ["", *"target target live live target assistant target live".split()])
        copier, interceptor, agent = (note for note in self.commands("docs/checks.md", "millrace-copier check"))
        for command, note in (interceptor, agent):
            self.assertIn("on the target", note)
            self.on("target", command)
        self.follow(readme, 1, 4)
        self.on("live", copier[0])
        self.stage.load(SERVICE)
        self.operator.settled(40)
        self.follow(readme, 4, 6)
        self.states()
        self.look()
        self.steer()

    def states(self) -> None:
        """What `status` says, wherever a page asks for it."""
        working = {"copier": "copying 100% of", "interceptor": "returning responses to", "router-agent": "diverting responses of"}
        seen = set()
        asked = [("docs/alerts.md", "copier"), ("docs/troubleshooting.md", "copier"), ("docs/troubleshooting.md", "router-agent")]
        for page, first in asked:
            for command, _ in self.commands(page, f"millrace-{first} status"):
                program = command.removeprefix("millrace-").removesuffix(" status")
                where = "live" if program == "copier" else "target"
                self.says(where, command, working[program])
                seen.add(program)
        self.assertEqual(seen, set(working))

    def says(self, where: str, command: str, words: str) -> None:
        eventually(f"{command}: {words}", lambda: words in self.on(where, command).splitlines()[0])

    def look(self) -> None:
        for command, note in self.commands("docs/troubleshooting.md", "curl -s http://127.0.0.1:36530/status"):
            said = json.loads(self.on("live" if note.startswith("live") else "target", command))
            self.assertTrue(said)
        for command, _ in self.commands("docs/troubleshooting.md", "millrace-copier ctl log-level"):
            self.on("live", command)
        history, events = (command for command, _ in self.commands("docs/page.md", "curl -s 'http"))
        self.assertTrue(json.loads(self.on("live", history)))
        self.assertIn("data:", self.on("live", f"{events} || [ $? = 28 ]"))

    def steer(self) -> None:
        """Each command of docs/ramp.md; the one that ends the copier comes last."""
        found = [command for command, _ in self.commands("docs/ramp.md", "millrace-copier ctl intensity")]
        self.assertEqual(sum("ctl stop" in it for it in found), 1)
        for command in sorted(found, key=lambda it: "ctl stop" in it):
            self.on("live", command)
        copier = self.operator.terminals["live", "millrace-copier"]
        self.assertEqual(copier.process.wait(40), 0, copier.said())

    def test_an_assistant(self):
        self.follow("README.zh-CN.md", 6, 9)
        self.stage.load(SERVICE)
        self.ends_well(40)

    def test_a_ramp(self):
        """The copier's command line of docs/ramp.md, with the assistant of the README."""
        self.follow("README.zh-CN.md", 6, 8)
        [(command, _)] = self.commands("docs/ramp.md", "millrace-copier -x")
        self.operator.start("live", command)
        self.stage.load(SERVICE)
        ramp = self.operator.report()["intensity"]
        self.assertEqual(ramp["mode"], "running", ramp)
        self.assertLess(ramp["now"], 1)
        self.operator.end("live", "millrace-copier")
