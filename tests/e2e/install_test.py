#!/usr/bin/env python3
"""Goal    What is installed is complete: launcher, daemon and model find each other, wherever the prefix lies.
Method  cmake --install into an empty folder; two ranks are started from there, with nothing on their path, and asked."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from group import LIMIT_SECONDS, Group, complete

BUILD = os.environ["LOCKSTEP_E2E_BUILD"]


class Install(unittest.TestCase):
    def test_of_launcher_daemon_and_model_serves_from_any_prefix(self):
        with tempfile.TemporaryDirectory() as prefix:
            subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], check=True, capture_output=True, timeout=LIMIT_SECONDS)
            programs = pathlib.Path(prefix, "bin")
            group = Group(binary=str(programs / "lockstepd"), launcher=str(programs / "lockstep-run"))
            self.addCleanup(group.close)
            for port in group.ports:
                self.assertEqual(complete(port, prompt="In the beginning", max_tokens=4).status, 200, group.log())
            group.drain()
            self.assertEqual(group.wait(), 0, group.log())


if __name__ == "__main__":
    unittest.main()
