"""docs/balancers.md: a proxy before the live server, and on its host; PROXY protocol; TLS that ends on the live server."""

from __future__ import annotations

import unittest

from containers import Container
from guide import Operator, blocks
from hosts import CLIENTS, Host, Stage, eventually, plug

PAGE = "docs/balancers.md"
LOOK, POOL, ON_PROXY, PROXY_PROTOCOL, LOOPBACK = blocks(PAGE)
PROXY = "198.18.2.40"
LOGS = "pid nginx.pid; error_log error.log; events {} http { access_log off;"
# Connections to the live server are kept and shared.
KEEPING = (
    LOGS
    + """ upstream live { server 198.18.2.10:80; keepalive 4; }
server { listen 80; location / { proxy_pass http://live; proxy_http_version 1.1; proxy_set_header Connection ""; } } }"""
)
TOLD = (
    LOGS
    + """ log_format told '$proxy_protocol_addr $request_uri';
server { listen PORT proxy_protocol; access_log told.log told; location / { return 200; } } }"""
)
TLS = (
    LOGS
    + """ server { listen 443 ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem;
location / { proxy_pass http://127.0.0.1:8081; } } }"""
)
# Each line of its input is a request.
TELLER = """
import socket, sys
told = b"PROXY TCP4 198.18.77.7 198.18.2.10 50000 80\\r\\n"
with socket.create_connection(("198.18.2.10", 80)) as peer:
    for line in sys.stdin:
        peer.sendall(told + b"GET /%s HTTP/1.1\\r\\nHost: live\\r\\n\\r\\n" % line.strip().encode())
        told = b""
        assert peer.recv(4096).startswith(b"HTTP/1.1 200")
        print("answered", flush=True)
"""


class WithProxy(Stage):
    """With another host beside the live server."""

    def build(self) -> None:
        super().build()
        host = self.hosts["proxy"] = Host("proxy")
        plug(host, self.hosts["router"], "servers", f"{PROXY}/24")
        host.run("ip route add default via 198.18.2.1")


class Balancers(unittest.TestCase):
    def setUp(self):
        self.stage = WithProxy()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        self.live, self.target, self.proxy, self.client = (self.stage.hosts[it] for it in ("live", "target", "proxy", "client"))
        # Router-agent and interceptor.
        self.operator.follow(blocks("README.md")[2])

    def nginx(self, host: Host, config: str) -> None:
        host.run(f"cat > nginx.conf <<'END'\n{config}\nEND")
        host.start(f"nginx -p {host.home}/ -c {host.home}/nginx.conf -g 'daemon off;'")
        eventually("nginx", lambda: host.run("test -s nginx.pid && kill -0 $(cat nginx.pid) && echo yes", False))

    def end_nginx(self, host: Host) -> None:
        """Its connections with it."""
        host.run("kill $(cat nginx.pid); while [ -e nginx.pid ]; do sleep 0.1; done")

    def behind_a_proxy(self) -> None:
        self.stage.serve("live", 80)
        self.stage.serve("target", 8080)
        self.nginx(self.proxy, KEEPING)

    def ends_well(self, sessions: int, host: str = "live") -> dict:
        """All that was copied has arrived; gives the report."""
        report = self.operator.settled(sessions, host)
        self.assertEqual((report["replicas"]["aborted"], report["fidelity"]), ({}, 1))
        self.assertEqual(report["replicas"]["completed"], report["sessions"]["captured"])
        self.operator.end(host, "millrace-copier")
        return report

    def copied(self, expected: list[tuple]) -> None:
        """What the target has got, byte for byte; what is copied bears addresses of the pool."""
        self.assertEqual(self.stage.streams("target"), sorted(expected))
        self.assertNotRegex(self.target.run("cat service.jsonl"), f"{PROXY}|198.18.1.|127.0.0.1")

    def test_a_proxy_before_the_live_server(self):
        self.behind_a_proxy()
        self.stage.load(f"{PROXY}:80")
        self.operator.follow(LOOK)
        [said] = self.operator.said.values()
        self.assertRegex(said, rf"^ *[1-9]\d* \[?(::ffff:)?{PROXY}\]?$")
        self.end_nginx(self.proxy)
        before = self.live_streams()
        self.operator.follow(POOL)
        self.nginx(self.proxy, KEEPING)
        self.stage.load(f"{PROXY}:80")
        self.end_nginx(self.proxy)
        through = self.live_streams()
        # A health check, which is left out.
        self.client.run(f"millrace-lab load --from {CLIENTS[-1]} one-request 198.18.2.10:80 --count 7")
        for stream in before:
            through.remove(stream)
        self.ends_well(len(through))
        self.copied(through)

    def test_the_proxys_open_connections_are_taken_up_and_the_target_answers_it_meanwhile(self):
        self.behind_a_proxy()
        self.stage.load(f"{PROXY}:80")
        self.operator.follow(POOL)
        self.stage.load(f"{PROXY}:80")
        eventually("copies", lambda: self.operator.report()["replicas"]["established"])
        self.assertGreater(self.operator.report()["sessions"]["midway"], 0)
        code = "curl -s -m 5 -o /dev/null -w '%{http_code}' http://198.18.2.20:8080/bytes/10"
        self.assertEqual(self.proxy.run(code), "200")

    def test_on_the_proxys_own_host(self):
        self.behind_a_proxy()
        self.operator.follow(ON_PROXY)
        self.stage.load(f"{PROXY}:80")
        self.end_nginx(self.proxy)
        self.ends_well(len(self.live_streams()), "proxy")
        self.copied(self.live_streams())

    def test_proxy_protocol(self):
        for host, port in ((self.live, 80), (self.target, 8080)):
            self.nginx(host, TOLD.replace("PORT", str(port)))
        self.client.run(f"cat > teller.py <<'END'\n{TELLER}\nEND\nmkfifo requests")
        teller = self.client.start("sh -c 'python3 teller.py < requests'")
        # The shell that writes holds the pipe open.
        writer = self.client.start("sh -c 'exec 3> requests; echo before >&3; while [ ! -e go ]; do sleep 0.1; done; echo after >&3'")
        eventually("an answer", lambda: "answered" in teller.said())
        self.operator.follow(PROXY_PROTOCOL)
        self.client.run("touch go")
        for number in range(10):
            self.client.run(f"echo new{number} | python3 teller.py")
        eventually("the end", lambda: not teller.alive() and not writer.alive())
        self.assertEqual(teller.said().count("answered"), 2)
        report = self.ends_well(10)
        self.assertEqual(report["sessions"]["captured"], 10)
        self.assertGreater(report["bytes"]["refused"], 0)
        told = self.target.run("cat told.log").splitlines()
        self.assertEqual(sorted(told), [f"198.18.77.7 /new{number}" for number in range(10)])
        self.assertEqual(len(self.live.run("cat told.log").splitlines()), 12)

    def test_a_translator_that_tracks_nothing(self):
        """Between copier and target; one that does track is in test_containers.py."""
        shop = Container(self.target, "shop", "198.18.7.2")
        shop.serve(8080)
        self.stage.serve("live", 80)
        self.target.run(
            "nft add table ip stateless; nft add chain ip stateless in '{ type filter hook prerouting priority raw; }'\n"
            "nft add rule ip stateless in ip daddr 198.18.2.20 tcp dport '{ 8080, 36525, 36527 }' notrack ip daddr set 198.18.7.2"
        )
        # What the daemons inside say to the copier goes back the same way.
        self.target.run(
            "nft add chain ip stateless out '{ type filter hook postrouting priority raw; }'\n"
            "nft add rule ip stateless out ip saddr 198.18.7.2 tcp sport '{ 36525, 36527 }' ip saddr set 198.18.2.20"
        )
        for daemon in ("router-agent", "interceptor"):
            self.operator.end("target", f"millrace-{daemon}")
        into = "nsenter -t $(docker inspect -f '{{.State.Pid}}' shop) -n "
        self.operator.start("target", f"{into}millrace-router-agent -b 198.18.7.2 -p 36527 --insecure")
        self.operator.start("target", f"{into}millrace-interceptor -b 198.18.7.2 -p 36525 --insecure")
        peers = "-s 198.18.2.20:36525 --router-agent 198.18.2.20:36527"
        self.operator.start("live", f"millrace-copier -x 80-198.18.2.20:8080 {peers} --nat -c 198.18.9.0/24 --insecure")
        self.stage.load("198.18.2.10:80")
        self.ends_well(40)
        self.copied(self.live_streams())

    def test_tls_ends_on_the_live_server(self):
        self.stage.serve("live", 8081)
        self.stage.serve("target", 8080)
        self.live.run("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=live -keyout key.pem -out cert.pem 2>&1")
        self.nginx(self.live, TLS)
        self.operator.follow(LOOPBACK)
        for number in range(20):
            self.client.run(f"curl -sfk https://198.18.2.10/bytes/{number + 1} -o /dev/null")
        self.ends_well(20)
        self.assertEqual(len(self.live_streams()), 20)
        self.copied(self.live_streams())

    def live_streams(self) -> list[tuple]:
        return self.stage.streams("live")
