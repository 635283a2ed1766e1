#!/usr/bin/env python3
"""Goal    systemd understands every line of the units, and they leave a daemon that is taken over little to do.
Method  systemd-analyze verify, whose warnings count as errors, and security --offline, on copies of the units with and without the GPU drop-in."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

UNITS = pathlib.Path(__file__).resolve().parents[2] / "systemd"
NAMES = ("lockstep.service", "lockstep@.service")
EXPOSURE_MAX = 2.0


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


def settings(name):
    """Every "key=value" of a unit, without comments, in order."""
    return [line for line in (UNITS / name).read_text().splitlines() if line and not line.startswith("#")]


class Units(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.units = self.root / "etc/systemd/system"
        self.units.mkdir(parents=True)

    def exposure(self, name):
        result = analyze("security", "--offline=true", f"--root={self.root}", name)
        found = re.search(r"exposure level for .*: ([0-9.]+)", result.stdout)
        self.assertIsNotNone(found, result.stdout + result.stderr)
        return float(found[1])

    def verify(self, text, name):
        # The program lies elsewhere until the package is installed.
        (self.root / name).write_text(text.replace("/usr/lib/lockstep/", f"{UNITS}/"))
        result = analyze("verify", "--man=no", str(self.root / name))
        return result.stdout + result.stderr

    def test_are_understood_by_systemd_to_the_last_line(self):
        self.assertEqual(self.verify((UNITS / "lockstep.service").read_text(), "lockstep.service"), "")
        self.assertEqual(self.verify((UNITS / "lockstep@.service").read_text(), "lockstep@demo.service"), "")

    def test_verify_would_notice_a_key_that_does_not_exist(self):
        text = (UNITS / "lockstep.service").read_text().replace("RestartSec=1", "RestartSecs=1")
        self.assertIn("RestartSecs", self.verify(text, "lockstep.service"))

    def test_expose_at_most_two_points_with_and_without_gpus(self):
        for name in NAMES:
            shutil.copy(UNITS / name, self.units)
            with self.subTest(unit=name, gpu=False):
                self.assertLessEqual(self.exposure(name.replace("@", "@demo")), EXPOSURE_MAX)
            (self.units / f"{name}.d").mkdir()
            shutil.copy(UNITS / "gpu.conf", self.units / f"{name}.d")
            with self.subTest(unit=name, gpu=True):
                self.assertLessEqual(self.exposure(name.replace("@", "@demo")), EXPOSURE_MAX)

    def test_gpu_drop_in_opens_the_devices(self):
        shutil.copy(UNITS / "lockstep.service", self.units)
        closed = self.exposure("lockstep.service")
        (self.units / "lockstep.service.d").mkdir()
        shutil.copy(UNITS / "gpu.conf", self.units / "lockstep.service.d")
        self.assertGreater(self.exposure("lockstep.service"), closed)

    def test_differ_only_in_what_names_the_host_file(self):
        one, several = (set(settings(name)) for name in NAMES)
        self.assertEqual(
            {line.split("=")[0] for line in one ^ several}, {"Description", "AssertPathExists", "ExecStart", "RuntimeDirectory"}
        )

    def test_drain_by_sigusr1_and_never_forbid_code_that_is_compiled_at_run_time(self):
        for name in NAMES:
            self.assertLessEqual({"Type=notify", "NotifyAccess=all", "KillSignal=SIGUSR1", "KillMode=mixed", "Restart=on-failure"}, set(settings(name)))
            self.assertFalse([line for line in settings(name) if line.startswith("MemoryDenyWriteExecute")])


if __name__ == "__main__":
    unittest.main()
