"""docs/protocols.md, followed to the letter: servers at both ends whose passwords differ, an application that hands out tokens."""

from __future__ import annotations

import json
import unittest

from guide import Operator, blocks
from hosts import ROOT, Stage, eventually

LIVE, TARGET = "of the live service", "the password at the target"
HTTP_RULES, HTTP, ALL_RULES, MYSQL, REDIS, READ_ONLY, DRY_RUN, SHOWN = blocks("docs/protocols.md")
APPLICATION = ROOT / "tests/integration/tests/lab/protocols/token_app.py"


class Protocols(unittest.TestCase):
    def setUp(self):
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        self.stage.hosts["target"].run("ip route add 198.18.1.0/24 via 198.18.2.30")
        # As in docs/quick-start.md.
        self.operator.start("assistant", "millrace-interceptor -i eth0 -b 198.18.2.30 --insecure")

    def run_on(self, host: str, command: str) -> str:
        return self.stage.hosts[host].run(command, False)

    def ends(self, sessions: int) -> dict:
        report = self.operator.settled(sessions)
        self.assertEqual((report["replicas"]["completed"], report["replicas"]["aborted"]), (sessions, {}))
        said = self.operator.end("live", "millrace-copier")
        self.assertNotIn(TARGET, said)
        return report

    def redis(self) -> None:
        for host, password in (("live", LIVE), ("target", TARGET)):
            self.stage.hosts[host].start(f"redis-server --bind '*' --save '' --requirepass '{password}'")
            eventually("a Redis", lambda host=host, password=password: self.ask(host, "127.0.0.1", password, "PING") == "PONG")

    def ask(self, host: str, at: str, password: str, command: str) -> str:
        return self.run_on(host, f"redis-cli -h {at} --no-auth-warning -a '{password}' {command}")

    def test_redis(self):
        self.redis()
        self.operator.follow(REDIS)
        for _ in range(20):
            self.ask("client", "198.18.2.10", LIVE, "INCR count")
        self.ends(20)
        self.assertEqual(self.ask("target", "127.0.0.1", TARGET, "GET count"), "20")

    def test_read_only(self):
        self.redis()
        self.operator.follow(REDIS)
        self.operator.end("live", "millrace-copier")
        self.operator.follow(READ_ONLY)
        for _ in range(5):
            self.ask("client", "198.18.2.10", LIVE, "INCR count")
            self.ask("client", "198.18.2.10", LIVE, "SET other 1")
        self.operator.settled(10)
        self.operator.follow(DRY_RUN)
        [said] = [said for command, said in self.operator.said.items() if "writes" in command]
        self.assertEqual(json.loads(said), {"redis": {"INCR": {"sent": 5, "left_out": 0}, "SET": {"sent": 0, "left_out": 5}}})
        self.assertEqual(json.loads(said).keys(), json.loads("\n".join(SHOWN.lines)).keys())
        self.assertEqual(self.ask("target", "127.0.0.1", TARGET, "GET other"), "")
        self.ends(10)

    def test_http(self):
        for host in ("live", "target"):
            self.stage.hosts[host].start(f"/usr/bin/python3 {APPLICATION} 8100")
            eventually("an application", lambda host=host: self.run_on(host, "curl -s http://127.0.0.1:8100/counts") != "")
        name = HTTP_RULES.lines[0].removeprefix("# ")
        self.run_on("live", "mkdir -p /etc/millrace")
        self.run_on("live", f"cat > {name} <<'END'\n" + "\n".join(HTTP_RULES.lines) + "\nEND")
        self.operator.follow(HTTP)
        service = "http://198.18.2.10:8100"
        csrf = json.loads(self.run_on("client", f"curl -s -c /tmp/jar {service}/login"))["csrf"]
        for n in range(10):
            self.run_on("client", f"curl -s -b /tmp/jar -H 'X-Token: {csrf}' {service}/item/{n}")
        self.ends(11)
        counts = json.loads(self.run_on("target", "curl -s http://127.0.0.1:8100/counts"))
        self.assertEqual(counts, {"login": 1, "item accepted": 10})

    def test_all_rules_are_rules(self):
        self.run_on("live", "cat > /tmp/all.toml <<'END'\n" + "\n".join(ALL_RULES.lines) + "\nEND")
        command = "millrace-copier check-config -x 80-198.18.2.20:80 -s 198.18.2.30 --insecure --protocol 80=http"
        self.run_on("live", "chmod 600 /tmp/all.toml")
        self.assertIn("protocol module http", self.stage.hosts["live"].run(f"{command} --http-rules /tmp/all.toml"))

    def test_mysql(self):
        for host, password in (("live", LIVE), ("target", TARGET)):
            self.mariadb(host, password)
        self.operator.follow(MYSQL)
        client = f"mariadb --no-defaults -h 198.18.2.10 -u app '-p{LIVE}' shop -e"
        self.run_on("client", f"{client} 'CREATE TABLE t (n INT)'")
        for n in range(10):
            self.run_on("client", f"{client} 'INSERT INTO t VALUES ({n})'")
        self.ends(11)
        self.assertEqual(self.root("target", "SELECT COUNT(*) FROM shop.t"), "10")

    def mariadb(self, host: str, password: str) -> None:
        data = f"/tmp/{host}-mariadb"
        self.run_on(host, f"mkdir -p {data}")
        install = "mariadb-install-db --no-defaults --user=root --skip-test-db --auth-root-authentication-method=normal"
        self.stage.hosts[host].run(f"TMPDIR={data} {install} --datadir={data}")
        options = f"--no-defaults --user=root --datadir={data} --tmpdir={data} --socket={data}/s --pid-file={data}/pid"
        self.stage.hosts[host].start(f"mariadbd {options} --bind-address='*' --skip-name-resolve --innodb-buffer-pool-size=32M")
        eventually("a MariaDB", lambda: self.root(host, "SELECT 1") == "1")
        self.root(host, f"CREATE DATABASE shop; CREATE USER app IDENTIFIED BY '{password}'; GRANT ALL ON shop.* TO app")

    def root(self, host: str, statements: str) -> str:
        return self.run_on(host, f'mariadb --no-defaults --socket=/tmp/{host}-mariadb/s -u root -N -B -e "{statements}"')


if __name__ == "__main__":
    unittest.main()
