"""Containers of a host as namespaces: on a bridge with the rules that Docker makes, or by macvlan. There is no engine here.

A command `docker` of the host tells a container's process id, as the pages ask for it.
"""

from __future__ import annotations

from hosts import Host, eventually

DOCKER = """#!/bin/sh
# docker inspect -f FORMAT NAME
exec ip netns pids "$4" | head -n 1
"""
# What Docker has for a published port: destination NAT before routing, masquerading of its own network, a closed FORWARD.
RULES = """
add table ip nat
add chain ip nat prerouting {{ type nat hook prerouting priority dstnat; }}
add chain ip nat postrouting {{ type nat hook postrouting priority srcnat; }}
add table ip filter
add chain ip filter forward {{ type filter hook forward priority 0; policy drop; }}
add rule ip filter forward oifname "docker0" ct state related,established accept
add rule ip filter forward oifname "docker0" ct status dnat accept
add rule ip filter forward iifname "docker0" oifname != "docker0" accept
add rule ip filter forward iifname "docker0" oifname "docker0" accept
add rule ip nat prerouting fib daddr type local tcp dport {port} dnat to {address}:{inner}
add rule ip nat postrouting ip saddr {network} oifname != "docker0" masquerade
"""


class Container:
    """With a network of its own."""

    def __init__(self, host: Host, name: str, address: str):
        self.host, self.name, self.address = host, name, address
        self.gateway = address.rpartition(".")[0] + ".1"
        host.run(f"ip netns add {name}; ip -n {name} link set lo up")
        self.plug()
        host.run(
            f"ip -n {name} link set eth0 up; ip -n {name} address add {address}/24 dev eth0\n"
            f"ip -n {name} route add default via {self.gateway}"
        )
        self.has_docker()

    def plug(self) -> None:
        """To the host's bridge `docker0`."""
        self.host.run(
            f"test -d /sys/class/net/docker0 || {{ ip link add docker0 type bridge; ip address add {self.gateway}/24 dev docker0; "
            f"ip link set docker0 up; sysctl -qw net.ipv4.ip_forward=1; }}\n"
            f"ip link add veth-{self.name} type veth peer name eth0 netns {self.name}; ip link set veth-{self.name} master docker0 up"
        )

    def has_docker(self) -> None:
        folder = f"{self.host.home}/bin"
        self.host.run(f"mkdir -p {folder}; cat > {folder}/docker <<'END'\n{DOCKER}END\nchmod +x {folder}/docker")
        path = self.host.run('echo "$PATH"')
        self.host.environment["PATH"] = f"{folder}:{path.removeprefix(folder + ':')}"

    def publish(self, port: int, inner: int) -> None:
        """As `-p PORT:INNER` does."""
        network = self.address.rpartition(".")[0] + ".0/24"
        rules = RULES.format(port=port, inner=inner, address=self.address, network=network)
        self.host.run(f"nft -f - <<'END'\n{rules}\nEND")

    def run(self, command: str, check: bool = True) -> str:
        """In its network."""
        return self.host.run(f"ip netns exec {self.name} {command}", check)

    def serve(self, port: int) -> None:
        """A service in it, which notes what it gets where that of the host would."""
        self.host.start(f"ip netns exec {self.name} millrace-lab recorder --http {port} --out service.jsonl")
        eventually("a service", lambda: self.run(f"ss -Hltn sport = :{port}", False))


class Macvlan(Container):
    """With an address of its own in the network of the host's eth0."""

    def plug(self) -> None:
        self.host.run(f"ip link add mv0 link eth0 type macvlan mode bridge; ip link set mv0 netns {self.name} name eth0")
