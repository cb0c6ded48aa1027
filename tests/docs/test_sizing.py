"""docs/sizing.md: its commands, and its figures of bytes, counted again. Those of CPU time are a benchmark's."""

from __future__ import annotations

import json
import re
import unittest

from guide import Operator, blocks, page_text
from hosts import CLIENTS, Stage, eventually

PAGE = "docs/sizing.md"
BEFORE, ON_LIVE, ON_TARGET = (it for it in blocks(PAGE) if it.language == "sh")
README = blocks("README.md")
SERVICE = "198.18.2.10:80"
LOAD = f"millrace-lab load --from {','.join(CLIENTS)}"
COUNTERS = """
add table inet sizes
add chain inet sizes input { type filter hook input priority -300; }
add chain inet sizes output { type filter hook output priority -300; }
add rule inet sizes input tcp sport 36524 counter
add rule inet sizes output tcp dport 36524 counter
"""


def row(start: str) -> list[float]:
    """The numbers behind the first cell of the row of a table that begins so."""
    text = page_text(PAGE).split("## Disk for recordings")[0]
    [found] = re.findall(rf"^\| {re.escape(start)} \|(.*)\|$", text, re.MULTILINE)
    return [float(it.replace(",", "")) for it in re.findall(r"[0-9][0-9,]*", found)]


class Sizing(unittest.TestCase):
    def setUp(self):
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        self.live, self.target, self.client = (self.stage.hosts[it] for it in ("live", "target", "client"))
        self.stage.serve("live", 80)
        self.stage.serve("target", 8080)

    def copying(self, *more: str) -> None:
        """As README.md says, and every kind of client has been met."""
        if ("target", "millrace-interceptor") not in self.operator.terminals:
            self.operator.follow(README[2])
        self.operator.start("live", " ".join([README[3].commands()[1][0], *more]))
        self.stage.load(SERVICE)
        self.operator.settled(40)

    def near(self, measured: float, *written: float) -> None:
        """The machine decides how much is gathered into one message."""
        print(f"    {measured:.0f}, written {written}", flush=True)
        self.assertGreater(measured, 0.6 * min(written))
        self.assertLess(measured, 1.6 * max(written))

    def test_commands(self):
        load = self.client.start(f"{LOAD} keep-alive {SERVICE} --seconds 16 --pause 10")
        eventually("clients", lambda: self.live.run("ss -Htn state established 'sport = :80' | wc -l") == "16")
        self.operator.follow(BEFORE)
        sessions, opened, bytes_of_clients = self.operator.said.values()
        self.assertEqual(sessions, "16")
        self.assertRegex(opened, r"TcpPassiveOpens +\d+ ")
        self.assertGreater(int(bytes_of_clients), 1000)
        load.process.wait(30)
        self.copying()
        self.operator.follow(ON_LIVE)
        self.operator.follow(ON_TARGET)
        _, pressure, live, target, _ = list(self.operator.said.values())[-5:]
        self.assertIn('"memory"', pressure)
        self.assertIn('"dropped"', pressure)
        for said in (live, target):
            self.assertRegex(said, r"^ *\d+ +[0-9:]+ +[0-9:]+$")

    def test_memory(self):
        base, of_process = re.search(r"\| an idle session with one copy \| (\d+) \((\d+) of", page_text(PAGE)).groups()
        [more] = row("each further copy of it (`-n`)")
        self.assertGreater(int(of_process), int(base))
        for copies in (1, 3):
            self.copying(f"-n {copies}")
            load = self.client.start(f"{LOAD} --concurrency 1000 idle {SERVICE} --seconds 8 --count 1000")
            eventually("sessions", lambda: self.operator.report()["replicas"]["open"] == 1000 * copies)
            self.live.run("sleep 2")
            measured = self.operator.report()["pressure"]["memory"] / 1000
            written = int(base) + (copies - 1) * more
            print(f"    {measured:.0f}, written {written:.0f}", flush=True)
            self.assertLess(abs(measured - written), 0.1 * written)
            load.process.wait(30)
            self.operator.end("live", "millrace-copier")

    def test_bytes_between_copier_and_interceptor(self):
        self.live.run(f"nft -f - <<'END'\n{COUNTERS}\nEND")
        self.copying()
        _, low, high, _ = row("a request on a connection that stays, small answer")
        inwards, _, requests = self.counted(f"keep-alive {SERVICE} --seconds 3")
        self.near(inwards / requests, low, high)
        _, inwards_written, outwards_written, *with_pool = row("a session of one request")
        inwards, outwards, requests = self.counted(f"one-request {SERVICE} --count 2000 --rate 1000")
        self.near(inwards / requests, inwards_written)
        self.near(outwards / requests, outwards_written)
        self.operator.end("live", "millrace-copier")
        self.copying("-c 198.18.9.0/24")
        _, outwards, requests = self.counted(f"one-request {SERVICE} --count 2000 --rate 1000")
        self.near(outwards / requests, *with_pool)

    def counted(self, kind: str) -> tuple[int, int, int]:
        """Bytes to the copier, from it, and the requests that they were for."""
        before = self.counters()
        requests = json.loads(self.client.run(f"{LOAD} {kind}"))["requests"]
        self.live.run("sleep 1")
        inwards, outwards = (now - then for now, then in zip(self.counters(), before, strict=True))
        return inwards, outwards, requests

    def counters(self) -> list[int]:
        return [int(it) for it in re.findall(r"bytes (\d+)", self.live.run("nft list table inet sizes"))]

    def test_recordings(self):
        tables = page_text(PAGE).split("## Disk for recordings")[1]
        for start, kind in (
            ("a request on a connection that stays", "keep-alive {} --seconds 2"),
            ("a session of one request", "one-request {} --count 1000 --rate 500"),
        ):
            recorder = self.live.start("millrace-copier record -x 80 -w size.pcapng")
            eventually("a recording", lambda: self.live.run("test -s size.pcapng && echo yes", False))
            requests = json.loads(self.client.run(f"{LOAD} {kind.format(SERVICE)}"))["requests"]
            self.live.run("sleep 1")
            self.assertEqual(recorder.interrupt(), 0)
            written = re.search(rf"\| {start} \| ([0-9,]+) \| (\d+) \|", tables).groups()
            sizes = self.live.run("wc -c < size.pcapng; gzip -c size.pcapng | wc -c; rm size.pcapng").split()
            for size, figure in zip(sizes, written, strict=True):
                self.near(int(size) / requests, float(figure.replace(",", "")))
