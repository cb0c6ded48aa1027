"""The table of README.md: each page with commands is in it, and the test that it names reads the page."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

from guide import blocks, page_text
from hosts import ROOT

TABLE = dict(re.findall(r"^\| `([^`]+\.md)` \| ([^|]+) \|$", page_text("tests/docs/README.md"), re.MULTILINE))


class Coverage(unittest.TestCase):
    def test_every_page_with_commands_is_in_the_table(self):
        pages = [Path("README.md"), Path("README.zh-CN.md"), *(it.relative_to(ROOT) for it in (ROOT / "docs").rglob("*.md"))]
        with_commands = {str(page) for page in pages if any(it.language == "sh" for it in blocks(str(page)))}
        self.assertEqual(with_commands, set(TABLE))

    def test_the_test_that_is_named_reads_the_page(self):
        for page, named in TABLE.items():
            found = re.match(r"`([^`]+)`", named)
            self.assertTrue(found, named)
            self.assertIn(page, (ROOT / found[1]).read_text(), f"{found[1]} does not read {page}")
