"""docs/router-agent.md: by hand, and as a daemon, on a host that has a VIP; the plan is the one that the page shows."""

from __future__ import annotations

import re
import unittest

from guide import Operator, blocks, page_text
from hosts import Stage

PAGE = "docs/router-agent.md"
VIP = "198.18.5.1"
# Without what IPv6 does by itself once a device is up.
STATE = """ip rule list; ip -6 rule list; ip -4 route list table all
ip -6 route list table all | grep -v -e fe80 -e ff00 | sort
ip -o link | sed 's/ state .*//'; nft list ruleset
sysctl -a 2>/dev/null | grep -E '^net.ipv[46].conf' | sort"""


class RouterAgent(unittest.TestCase):
    def setUp(self):
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        self.host = self.stage.hosts["target"]
        self.host.run(f"ip address add {VIP}/32 dev lo")
        self.plan, self.by_hand, self.daemon = [it for it in blocks(PAGE) if it.language == "sh"]

    def test_by_hand(self):
        before = self.host.run(STATE)
        self.follow(self.plan)
        self.as_shown(self.said)
        self.assertEqual(self.host.run(STATE), before, "a plan touches nothing")
        (apply, _), (show, _), (remove, _) = self.by_hand.commands()
        self.run_on(apply)
        self.assertIn("dev millrace0", self.host.run(f"ip route get 198.18.1.10 from {VIP} ipproto tcp sport 80"))
        self.assertIn("dev eth0", self.host.run(f"ip route get 198.18.2.1 from {VIP} ipproto tcp sport 80"))
        self.assertIn(f"{VIP}:80", self.run_on(show))
        self.run_on(remove)
        self.assertEqual(self.host.run(STATE), before, "what remove leaves is what was before")

    def test_as_a_daemon(self):
        self.host.run("millrace-copier certs --dir certs --for router-agent/agent")
        for file, name in (("ca.pem", "ca.pem"), ("router-agent-agent.pem", "agent.pem"), ("router-agent-agent-key.pem", "agent-key.pem")):
            self.host.run(f"cp certs/{file} {name}")
        [(command, _)] = self.daemon.commands()
        self.operator.start("target", command)
        self.assertIn("ready", self.host.run("curl -s http://127.0.0.1:36532/readyz"))
        self.operator.end("target", "millrace-router-agent")

    def as_shown(self, said: str) -> None:
        """Line by line; `...` stands for what the page leaves out."""
        shown = re.search(r"millrace-router-agent plan .*?```\n```\n(.*?)\n```", page_text(PAGE), re.DOTALL)[1].splitlines()
        lines = said.splitlines()
        self.assertEqual(len(lines), len(shown), said)
        for line, pattern in zip(lines, shown, strict=True):
            self.assertRegex(line, "^" + re.escape(pattern).replace(re.escape("..."), ".*") + "$")

    def follow(self, block) -> None:
        for command, _ in block.commands():
            self.said = self.run_on(command)

    def run_on(self, command: str) -> str:
        print(f"    target: {command}", flush=True)
        return self.host.run(command)
