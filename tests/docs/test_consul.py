"""docs/consul.md: daemons that find each other in Consul, with an agent of it on each host, and the plan of a cluster.

"The options that they have anyway" are in the environment here, so that the commands are those of the page.
"""

from __future__ import annotations

import os
import unittest
from pathlib import Path

from guide import Operator, blocks
from hosts import ROOT, Stage, eventually

PAGE = "docs/consul.md"
CONSUL = Path(os.environ.get("CONSUL", ROOT / "target/consul/consul"))
ANYWAY = {
    "target": {
        "MILLRACE_ROUTER_AGENT_INSECURE": "true",
        "MILLRACE_ROUTER_AGENT_BIND": "198.18.2.20",
        "MILLRACE_ROUTER_AGENT_ALLOW": "198.18.2.20:8080",
        "MILLRACE_INTERCEPTOR_INSECURE": "true",
        "MILLRACE_INTERCEPTOR_BIND": "198.18.2.20",
    },
    "live": {"MILLRACE_COPIER_INSECURE": "true"},
}


class Consul(unittest.TestCase):
    def setUp(self):
        if not CONSUL.exists():
            said = f"{CONSUL} is missing: make consul fetches it"
            self.assertFalse(os.environ.get("CI"), said)
            self.skipTest(said)
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        for host, options in ANYWAY.items():
            self.stage.hosts[host].environment.update(options)
        agent = f"{CONSUL} agent -data-dir consul -client 127.0.0.1 -log-level warn"
        self.stage.hosts["router"].start(f"{agent} -node router -bind 198.18.2.1 -server -bootstrap-expect 1")
        for host, address in (("target", "198.18.2.20"), ("live", "198.18.2.10")):
            self.stage.hosts[host].start(f"{agent} -node {host} -bind {address} -retry-join 198.18.2.1 -retry-interval 1s")
        leader = "curl -sf http://127.0.0.1:8500/v1/status/leader | grep 8300"
        for host in ("router", "target", "live"):
            eventually(f"Consul on {host}", lambda host=host: self.stage.hosts[host].run(leader, False))

    def test_daemons_find_each_other(self):
        on_target, on_live, operator = [it for it in blocks(PAGE) if it.language == "sh"]
        self.assertEqual(operator.where, "operator")
        self.stage.serve("live", 80)
        self.stage.serve("target", 8080)
        for command, _ in on_target.commands():
            self.operator.start("target", command)
        [(copier, _)] = on_live.commands()
        self.operator.start("live", copier)
        self.copies(40)
        # The copier that follows the plan: it waits for one.
        self.operator.start("live", f"{copier} --follow-plan")
        ramp, guards, status, stop = (command for command, _ in operator.commands())
        self.on_router(ramp)
        self.on_router(guards)

        def known() -> str:
            said = self.stage.hosts["router"].run(status)
            return "" if "knows no plan" in said else said

        said = eventually("the copier knows the plan", known)
        self.assertIn("0.1..2/30m", said)
        self.assertIn("resets>2%:stop", said)
        ramp = self.operator.report()["intensity"]
        self.assertTrue(0 < ramp["now"] < 1, ramp)
        self.on_router(stop)
        eventually("the plan has stopped", lambda: self.operator.report()["intensity"]["now"] == 0)
        self.operator.end("live", "millrace-copier")

    def copies(self, count: int) -> None:
        self.stage.load("198.18.2.10:80")
        self.operator.settled(count)
        self.operator.end("live", "millrace-copier")
        self.assertEqual(self.stage.streams("live"), self.stage.streams("target"))

    def on_router(self, command: str) -> str:
        print(f"    router: {command}", flush=True)
        return self.stage.hosts["router"].run(command)
