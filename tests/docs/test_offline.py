"""docs/offline.md: traffic of the live server is recorded, inspected and replayed at a server on the same host."""

from __future__ import annotations

import unittest

from guide import Operator, blocks
from hosts import Stage, eventually

SESSIONS = 40


class Offline(unittest.TestCase):
    def test_english(self):
        stage = Stage()
        self.addCleanup(stage.close)
        operator, live = Operator(stage), stage.hosts["live"]
        stage.serve("live", 8080)
        found = [it for it in blocks("docs/offline.md") if it.language == "sh"]
        self.assertEqual([it.where for it in found], ["live", "live"])
        (record, _), *rest = found[0].commands()

        operator.start("live", record)
        recorder = operator.terminals["live", "millrace-copier"]
        eventually("the recorder", lambda: "eth0" in recorder.said())
        stage.load("198.18.2.10:8080", SESSIONS)
        said = operator.end("live", "millrace-copier")
        self.assertIn("web.pcapng", live.run("ls"), said)
        recorded = stage.streams("live")
        self.assertEqual(len(recorded), SESSIONS)

        for command, _ in [*rest, *found[1].commands()]:
            print(f"    live: {command}", flush=True)
            # Exit code 0 says that all was delivered; so does the service.
            said = live.run(command)
            if "inspect" in command:
                self.assertIn(f"{SESSIONS} sessions", said)
            else:
                eventually("the service has read it", lambda: len(stage.streams("live")) == 2 * SESSIONS)
                self.assertEqual(stage.streams("live"), sorted(2 * recorded))
