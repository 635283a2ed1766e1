#!/usr/bin/env python3
"""Goal    docs/troubleshooting.md quotes messages that there are: who searches for what the log says finds it.
Method  Each first cell of its tables that is quoted is taken apart at "..."; every part must stand in a string of the sources or of the launcher."""

import pathlib
import re
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "troubleshooting.md"
FOLDERS = ("core", "device", "comm", "model", "scheduler", "daemon")


def quoted_messages():
    return re.findall(r"^\| `(.+?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def source_text():
    """All sources with their string literals in one piece: the compiler joins neighbours, placeholders are what the page leaves out."""
    parts = [path.read_text(encoding="utf-8") for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.?pp"))]
    text = re.sub(r'"\s*\n\s*"', "", "\n".join(parts)).replace('\\"', '"')
    return text + (REPOSITORY / "scripts" / "lockstep-run").read_text(encoding="utf-8")


class Troubleshooting(unittest.TestCase):
    def test_quotes_messages_that_there_are(self):
        text = source_text()
        messages = quoted_messages()
        self.assertGreater(len(messages), 30, "the page's tables have changed their form")
        for message in messages:
            for part in filter(None, (part.strip() for part in message.split("..."))):
                with self.subTest(message=message):
                    self.assertTrue(part in text, f"no message has {part!r}")


if __name__ == "__main__":
    unittest.main()
