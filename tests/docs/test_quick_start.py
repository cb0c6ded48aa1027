"""docs/quick-start.md in both languages, followed to the letter while clients use the live service."""

from __future__ import annotations

import json
import re
import threading
import time
import unittest

from guide import Operator, blocks, page_text
from hosts import Stage

LIVE, LIVE6, OTHER = "198.18.2.10:80", "[2001:db8:2::10]:80", "198.18.2.10:8081"
# The lab's demo, which `make demo` runs.
NOT_HERE = ("make demo", "target/release/millrace-lab demo --keep")


class QuickStart(unittest.TestCase):
    def test_english(self):
        self.follow("docs/quick-start.md")

    def test_chinese(self):
        self.follow("docs/zh-CN/quick-start.md")

    def follow(self, page: str) -> None:
        self.page = page
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        self.stage.serve("live", 80, 8081)
        self.stage.serve("target", 8080, 8081)
        found = blocks(page)
        demo = [it for it in found if it.language == "sh" and not it.where]
        self.assertEqual([it.lines for it in demo], [[command] for command in NOT_HERE])
        rest = [it for it in found if it not in demo]
        # The steps 1 to 4; then several services, a pool (two blocks), a file (two blocks).
        steps, several, pool, file = rest[:4], rest[4], rest[5:7], rest[7:]
        self.assertEqual([it.where for it in steps], ["assistant", "target", "live", "live"])
        self.assertEqual([it.where for it in (several, *pool)], ["live", "target", "live"])
        self.assertEqual([it.language for it in file], ["toml", "sh"])

        self.with_clients(steps)
        self.variation([several], 3, LIVE, LIVE6, OTHER)
        self.variation(pool, 1, LIVE)
        self.assertTrue(all(it.startswith("198.18.9.") for it in self.peers()), self.peers())
        self.write(file[0])
        self.variation(file[1:], 1, LIVE)
        self.assertEqual(json.loads(self.run_on("live", "cat /var/log/millrace/report.json"))["fidelity"], 1)
        self.options()
        self.undo()

    def with_clients(self, steps) -> None:
        """The steps, on a live server that is in use all the time, as live servers are."""
        stop, errors = threading.Event(), []

        def clients():
            while not stop.is_set() and not errors:
                try:
                    self.stage.load(LIVE, 20)
                except AssertionError as error:
                    errors.append(error)

        thread = threading.Thread(target=clients)
        thread.start()
        try:
            for block in steps:
                self.operator.follow(block)
        finally:
            stop.set()
            thread.join()
        self.assertEqual(errors, [], "the guide disturbed live clients")
        # What step 4 promises.
        [looked] = [said for command, said in self.operator.said.items() if command.endswith("36530/status")]
        self.assertIn("fidelity", json.loads(looked)["report"])
        # Those of before have been counted, or are within a second.
        time.sleep(2)
        before = self.operator.report()["sessions"]["captured"]
        self.stage.load(LIVE)
        report = self.operator.settled(before + 40)
        self.assertEqual(report["replicas"]["completed"], report["sessions"]["captured"])
        self.assertEqual(report["replicas"]["aborted"], {})
        # Step 5.
        self.operator.end("live", "millrace-copier")
        report = json.loads(self.run_on("live", "cat report.json"))
        self.assertEqual((report["fidelity"], report["replicas"]["aborted"]), (1, {}))
        self.assertGreaterEqual(report["replicas"]["completed"], 40)
        self.compare(report["replicas"]["completed"])

    def variation(self, found, services: int, *live: str) -> None:
        """Another command line for the copier, with the interceptor and the routes that are there."""
        before = len(self.stage.streams("target"))
        for block in found:
            self.operator.follow(block)
        for service in live:
            self.stage.load(service)
        report = self.operator.settled(40 * services)
        self.assertEqual(report["replicas"]["completed"], 40 * services, report)
        self.assertEqual(report["replicas"]["aborted"], {})
        self.operator.end("live", "millrace-copier")
        self.compare(before + 40 * services)

    def compare(self, count: int) -> None:
        """Every stream at the target is one that a client has sent, byte for byte."""
        live, target = self.stage.streams("live"), self.stage.streams("target")
        self.assertEqual(len(target), count)
        for stream in target:
            self.assertIn(stream, live)
            live.remove(stream)

    def peers(self) -> list[str]:
        """Where the latest copies came from."""
        lines = self.run_on("target", "tail -n 40 service.jsonl").splitlines()
        return [re.sub(r"^::ffff:|^\[::ffff:", "", json.loads(line)["peer"]) for line in lines]

    def write(self, block) -> None:
        """The file that the first line of a block names."""
        path = block.lines[0].removeprefix("# ")
        text = "\n".join(block.lines)
        self.run_on("live", f"mkdir -p $(dirname {path}); cat > {path} <<'END'\n{text}\nEND")

    def options(self) -> None:
        """Options that stand in the text alone are such, and what they are given is understood."""
        text = page_text(self.page)
        base = "millrace-copier check-config -x 80-198.18.2.20:8080 --insecure"
        options = set(re.findall(r"`(-[a-zA-Z] [^`]+)`", text))
        self.assertEqual(options, {"-H 198.18.1.9", "-n 3", "-o routed", "-s 198.18.2.30,198.18.2.31", "-m 256"})
        for option in options:
            interceptor = "" if option.startswith("-s") else "-s 198.18.2.30"
            self.run_on("live", f"{base} {interceptor} {option}")

    def undo(self) -> None:
        [command] = re.findall(r"`(ip route del [^`]+)`", page_text(self.page))
        self.run_on("target", command)
        self.assertIn("via 198.18.2.1 ", self.run_on("target", "ip route get 198.18.1.10"))

    def run_on(self, host: str, command: str) -> str:
        return self.stage.hosts[host].run(command)
