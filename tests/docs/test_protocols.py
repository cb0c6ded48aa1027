"""docs/protocols.md, followed to the letter: a Redis at the live server and one at the target, with passwords of their own."""

from __future__ import annotations

import unittest

from guide import Operator, blocks
from hosts import Stage, eventually

LIVE, TARGET = "of the live service", "the password at the target"


class Protocols(unittest.TestCase):
    def test_redis(self):
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        operator = Operator(self.stage)
        for host, password in (("live", LIVE), ("target", TARGET)):
            self.stage.hosts[host].start(f"redis-server --bind '*' --save '' --requirepass '{password}'")
            eventually("a Redis", lambda host=host, password=password: self.ask(host, "127.0.0.1", password, "PING") == "PONG")
        self.stage.hosts["target"].run("ip route add 198.18.1.0/24 via 198.18.2.30")
        # As in docs/quick-start.md.
        operator.start("assistant", "millrace-interceptor -i eth0 -b 198.18.2.30 --insecure")
        [block] = blocks("docs/protocols.md")
        operator.follow(block)
        for _ in range(20):
            self.ask("client", "198.18.2.10", LIVE, "INCR count")
        report = operator.settled(20)
        self.assertEqual((report["replicas"]["completed"], report["replicas"]["aborted"]), (20, {}))
        self.assertEqual(self.ask("target", "127.0.0.1", TARGET, "GET count"), "20")
        said = operator.end("live", "millrace-copier")
        self.assertNotIn(TARGET, said)

    def ask(self, host: str, at: str, password: str, command: str) -> str:
        return self.stage.hosts[host].run(f"redis-cli -h {at} --no-auth-warning -a '{password}' {command}", False)


if __name__ == "__main__":
    unittest.main()
