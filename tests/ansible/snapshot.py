"""What a roll-out could leave behind on a host."""

from __future__ import annotations

from hosts import Host

# Caches, logs and what package managers and systemd note for themselves change by themselves.
LOOK = {
    "files": r"""find /etc /usr /var /opt /srv /root /run/millrace -xdev -not -path '/var/log/*' -not -path '/var/cache/*' \
        -not -path '/var/lib/dpkg/*' -not -path '/var/lib/systemd/*' -not -path '/var/lib/apt/*' -not -path '/etc/*-' \
        -not -path '*/.ansible*' -not -name .pwd.lock -not -name '*.pyc' -not -name __pycache__ \
        -printf '%p %y %m %u:%g %l\n' 2>/dev/null | sort""",
    "contents": "find /etc -type f -not -name '*-' -not -name .pwd.lock -exec sha256sum {} + | sort -k2",
    "users": "cat /etc/passwd /etc/group /etc/shadow /etc/gshadow",
    "rules": "ip rule; ip -6 rule",
    "routes": "ip route show table all; ip -6 route show table all",
    "devices": "ip -br link | awk '{print $1, $2}'; ip -br address",
    "firewall": "nft list ruleset",
    "kernel settings": "sysctl -a 2>/dev/null | grep -E '^net\\.ipv[46]\\.(conf|ip_|tcp_)' | sort",
    "units": "systemctl list-unit-files --no-legend --plain | sort; systemctl list-units --all --no-legend --plain 'millrace*'",
    "packages": "dpkg-query -W -f '${Package} ${Version} ${Status}\\n'",
    "processes": "ps -eo comm= | grep millrace- | grep -v millrace-lab || true",
}


def snapshot(host: Host) -> dict[str, list[str]]:
    return {what: host.run(script, check=False).splitlines() for what, script in LOOK.items()}


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """Lines that are in one of them alone."""
    return [
        f"{what}: {sign} {line}"
        for what in LOOK
        for sign, one, other in (("gone", before[what], set(after[what])), ("new", after[what], set(before[what])))
        for line in one
        if line not in other
    ]


def changes_since(before: dict[str, dict[str, list[str]]], cluster) -> dict[str, list[str]]:
    """By machine what is not as it was, where there is such a thing."""
    return {name: found for name, machine in cluster.machines.items() if (found := differences(before[name], snapshot(machine)))}
