"""The cluster of docs/lvs-dr.md: clients, a router, two live servers, a director and three real servers.

    client ── router ── live1, live2, director, rs1, rs2, rs3
    198.18.1.0/24       198.18.2.0/24, VIP 198.18.2.50 port 8080
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

from hosts import Host, Machine, plug

VIP = "198.18.2.50"
LIVE = {"live1": "198.18.2.10", "live2": "198.18.2.11"}
REAL = {"rs1": "198.18.2.101", "rs2": "198.18.2.102", "rs3": "198.18.2.103"}
CLIENTS = [f"198.18.1.{last}" for last in range(10, 18)]


class Cluster:
    """Everything of it ends with close."""

    def __init__(self, lower: Path, work: Path):
        self.hosts: list[Host] = []
        try:
            self.build(lower, work)
        except BaseException:
            self.close()
            raise

    def add(self, host: Host) -> Host:
        self.hosts.append(host)
        return host

    def build(self, lower: Path, work: Path) -> None:
        self.machines = {name: self.add(Machine(name, lower, work / name)) for name in (*LIVE, *REAL)}
        self.router = self.add(Host("router"))
        self.client = self.add(Host("client"))
        self.director = self.add(Host("director"))
        for bridge, address in (("clients", "198.18.1.1/24"), ("servers", "198.18.2.1/24")):
            self.router.run(f"ip link add {bridge} type bridge; ip address add {address} dev {bridge}; ip link set {bridge} up")
        self.router.run("sysctl -qw net.ipv4.ip_forward=1")
        # Answers to copies that are on their way to clients. What the bridge carries between servers may come by here, too:
        # a copier's `check` asks the target from its own address.
        self.router.run(
            f"""nft -f - <<'END'
table inet leaks {{
    set answers {{
        type ipv4_addr . inet_service . inet_service
        size 65535
        flags dynamic
    }}
    chain forward {{
        type filter hook forward priority 0;
        oifname "clients" ip saddr {VIP} counter
        oifname "clients" ip saddr {VIP} update @answers {{ ip daddr . tcp sport . tcp dport counter }}
    }}
}}
END"""
        )
        plug(self.client, f"{CLIENTS[0]}/24", self.router, "clients")
        for address in CLIENTS[1:]:
            self.client.run(f"ip address add {address}/24 dev eth0")
        self.client.run("ip route add default via 198.18.1.1")
        plug(self.director, "198.18.2.40/24", self.router, "servers")
        for name, address in {**LIVE, **REAL}.items():
            machine = self.machines[name]
            machine.wait_until_up()
            plug(machine, f"{address}/24", self.router, "servers")
            machine.run("ip route add default via 198.18.2.1; mkdir -p /run/sshd")
            # The service: it answers, and notes the hash of what each connection has sent.
            machine.run("systemd-run -q --unit=service /opt/millrace-lab recorder --http 8080 --out /run/service.jsonl")
        director = self.director.mac()
        for name in REAL:
            self.machines[name].run(f"ip address add {VIP}/32 dev lo")
        # rs3 is not as LVS wants it: its agent sets arp_ignore and arp_announce, and restores them.
        for name in ("rs1", "rs2"):
            self.machines[name].run("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
        for name in LIVE:
            self.machines[name].run(f"ip neigh replace {VIP} lladdr {director} dev eth0 nud permanent")
        self.director.run(f"ip address add {VIP}/32 dev eth0")
        self.director.run("nft add table netdev director; nft add chain netdev director in '{ type filter hook ingress device eth0 priority 0; }'")
        self.direct_to(*REAL)

    def direct_to(self, *names: str) -> None:
        """Makes these the real servers that the director picks from, by the client's address and port."""
        own = self.director.mac()
        real = ", ".join(f"{number} : {self.machines[name].mac()}" for number, name in enumerate(names))
        self.director.run(
            f"""nft -f - <<'END'
flush chain netdev director in
add rule netdev director in ip daddr {VIP} tcp dport 8080 ether saddr set {own} ether daddr set jhash ip saddr . tcp sport mod {len(names)} seed 0x5eed map {{ {real} }} fwd to "eth0"
END"""
        )

    def load(self, lab: Path, live: str, kind: list[str]) -> subprocess.Popen:
        """Clients of a live server; each answer is checked, and what came of it is written as JSON."""
        addresses = [word for address in CLIENTS for word in ("--from", address)]
        command = [str(lab), "load", "--concurrency", "8", *addresses, *kind[:1], f"{LIVE[live]}:8080", *kind[1:]]
        return self.client.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def leaks(self) -> int:
        """Packets of the tested service that the router sent to clients."""
        table = self.router.run("nft list table inet leaks")
        # To whom they went is shown where a test fails.
        print(table)
        return int(re.search(r"ip saddr \S+ counter packets (\d+)", table).group(1))

    def status(self, live: str) -> dict:
        return json.loads(self.machines[live].run("millrace-copier status --json || [ $? = 2 ]"))[0]

    def eventually(self, live: str, wanted) -> bool:
        """Whether the copier's status soon is as wanted."""
        for _ in range(30):
            if wanted(self.status(live)):
                return True
            time.sleep(0.2)
        return False

    def settled(self, live: str, completed: int = 0) -> dict:
        """The copier's report once no copy is open any more, and so many are complete: it lags behind the clients."""
        for _ in range(100):
            report = self.status(live)["report"]
            if not report["replicas"]["open"] and report["replicas"]["completed"] >= completed:
                return report
            time.sleep(0.3)
        raise AssertionError(f"{live}: not {completed} copies are complete, or some stay open: {report['replicas']}")

    def close(self) -> None:
        for host in reversed(self.hosts):
            host.stop()
