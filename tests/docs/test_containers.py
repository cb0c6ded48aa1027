"""docs/containers.md: a live service in a container, the target in one, and what does not work."""

from __future__ import annotations

import unittest

from containers import Container, Macvlan
from guide import Operator, blocks, page_text
from hosts import Stage, eventually

PAGE = "docs/containers.md"
LOOK, PUBLISHED, BRIDGE, INSIDE, OWN_TARGET, OWN_LIVE, ROUTE, ASSISTANT = (it for it in blocks(PAGE) if it.language == "sh")
README = blocks("README.md")
INTO = "nsenter -t $(docker inspect -f '{{.State.Pid}}' shop) -n "


class Containers(unittest.TestCase):
    def setUp(self):
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        self.live, self.target = self.stage.hosts["live"], self.stage.hosts["target"]

    def live_in_a_container(self) -> Container:
        """And a target as in the README."""
        web = Container(self.live, "web", "198.18.7.2")
        web.publish(80, 8080)
        web.serve(8080)
        self.stage.serve("target", 8080)
        self.operator.follow(README[2])
        return web

    def target_in_a_container(self) -> Container:
        shop = Container(self.target, "shop", "198.18.7.2")
        shop.publish(8080, 8080)
        shop.serve(8080)
        self.stage.serve("live", 80)
        return shop

    def copied(self, count: int = 40) -> None:
        """Everything that clients have sent is at the target, byte for byte."""
        report = self.operator.settled(count)
        self.assertEqual((report["replicas"]["completed"], report["replicas"]["aborted"]), (count, {}))
        self.operator.end("live", "millrace-copier")
        self.assertEqual(self.stage.streams("live"), self.stage.streams("target"))

    def test_a_published_port(self):
        self.live_in_a_container()
        check = PUBLISHED.lines[0].replace("copier ", "copier check ").replace("--report report.json ", "")
        self.assertRegex(self.live.run(check), "warning +listener +nothing on this host listens on port 80(?s:.*)1 warning\n?$")
        self.operator.follow(LOOK)
        _, address, rules = self.operator.said.values()
        self.assertIn("198.18.7.2/24", address)
        self.assertIn("tcp dport 80 dnat to 198.18.7.2:8080", rules)
        self.operator.follow(PUBLISHED)
        self.stage.load("198.18.2.10:80")
        self.copied()

    def test_at_the_bridge(self):
        self.live_in_a_container()
        front = Container(self.live, "front", "198.18.7.3")
        self.operator.follow(BRIDGE)
        self.stage.load("198.18.2.10:80")
        front.run("millrace-lab load one-request 198.18.7.2:8080 --count 20")
        self.copied(60)

    def test_in_the_containers_own_network(self):
        self.live_in_a_container()
        self.operator.follow(INSIDE)
        self.stage.load("198.18.2.10:80")
        self.copied()

    def test_in_the_containers_own_network_without_a_pool_or_with_a_strict_filter(self):
        self.live_in_a_container()
        [(command, _)] = INSIDE.commands()
        self.operator.start("live", command.replace("-c 198.18.9.0/24 ", ""))
        self.stage.load("198.18.2.10:80")
        self.finds("not received")
        self.operator.end("live", "millrace-copier")
        self.live.run("sysctl -qw net.ipv4.conf.all.rp_filter=1")
        self.operator.start("live", command)
        self.stage.load("198.18.2.10:80")
        self.finds("not received")
        self.assertEqual(self.stage.streams("target"), [])

    def test_a_live_service_with_an_address_of_its_own(self):
        web = Macvlan(self.live, "web", "198.18.2.11")
        web.serve(8080)
        self.stage.serve("target", 8080)
        self.operator.follow(README[2])
        self.assertIn("| `198.18.2.11:8080-...` | the host's device below it: `eth0` |", page_text(PAGE).replace("this address: ", ""))
        command = BRIDGE.lines[0].replace("198.18.7.2:", "198.18.2.11:").replace("-i docker0", "-i eth0")
        self.operator.start("live", command)
        self.stage.load("198.18.2.11:8080")
        self.copied()

    def test_a_target_with_an_address_of_its_own(self):
        shop = Macvlan(self.target, "shop", "198.18.2.21")
        shop.serve(8080)
        self.stage.serve("live", 80)
        self.assertEqual(self.target.run("curl -sf -m 2 http://198.18.2.21:8080/bytes/1 || echo unreachable"), "unreachable")
        self.operator.follow(OWN_TARGET)
        self.operator.follow(OWN_LIVE)
        self.stage.load("198.18.2.10:80")
        self.copied()

    def test_a_target_behind_a_published_port(self):
        self.target_in_a_container()
        [interceptor] = [line for line in README[6].lines if "interceptor" in line]
        self.assertIn(f"`{interceptor}`", page_text(PAGE))
        self.operator.start("assistant", interceptor)
        self.operator.follow(ROUTE)
        self.operator.follow(ASSISTANT)
        self.stage.load("198.18.2.10:80")
        self.copied()

    def test_a_router_agent_on_the_host_of_a_published_port(self):
        self.target_in_a_container()
        said = self.target.run("millrace-router-agent -b 198.18.2.20 --insecure check -s 198.18.2.20:8080")
        self.assertRegex(said, "warning +application +nothing listens on 198.18.2.20:8080")
        self.operator.follow(README[2])
        self.operator.follow(PUBLISHED)
        self.stage.load("198.18.2.10:80")
        copier = self.operator.terminals["live", "millrace-copier"]
        eventually("the floor", lambda: "the firewall's floor had to stop responses" in copier.said())
        self.nothing_arrives()

    def test_daemons_in_the_container_of_a_published_port(self):
        self.target_in_a_container()
        self.target.run("nft add rule ip nat prerouting fib daddr type local tcp dport '{ 36524, 36526 }' dnat to 198.18.7.2")
        self.daemons_inside()
        self.operator.start("live", PUBLISHED.lines[0].replace("--insecure", "--nat -c 198.18.9.0/24 --insecure"))
        self.stage.load("198.18.2.10:80")
        self.finds("4 of 4 probes came back")
        self.nothing_arrives()

    def test_daemons_in_a_container_that_is_routed_to(self):
        """Only where invalid packets are dropped."""
        self.target_in_a_container()
        self.live.run("ip route add 198.18.7.0/24 via 198.18.2.20")
        for rule in ("ip daddr 198.18.7.2 accept", "ct state invalid drop"):
            self.target.run(f"nft insert rule ip filter forward {rule}")
        self.daemons_inside()
        command = PUBLISHED.lines[0].replace("198.18.2.20", "198.18.7.2")
        self.operator.start("live", command)
        self.stage.load("198.18.2.10:80")
        self.finds("probes came back")
        self.nothing_arrives()
        self.operator.end("live", "millrace-copier")
        self.target.run("nft flush chain ip filter forward; nft add rule ip filter forward accept")
        self.operator.start("live", command)
        self.stage.load("198.18.2.10:80")
        report = self.operator.settled(40)
        self.assertEqual(report["replicas"]["completed"], 40)

    def daemons_inside(self) -> None:
        for daemon in ("router-agent", "interceptor"):
            self.operator.start("target", f"{INTO}millrace-{daemon} -b 198.18.7.2 --insecure")

    def finds(self, words: str) -> None:
        eventually(words, lambda: words in (self.operator.report()["targets"][0]["finding"] or ""))

    def nothing_arrives(self) -> None:
        """Within some seconds."""
        self.live.run("sleep 4")
        self.assertEqual(self.operator.report()["replicas"]["completed"], 0)
        self.assertEqual(self.stage.streams("target"), [])
