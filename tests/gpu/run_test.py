#!/usr/bin/env python3
"""Goal    tests/gpu/run.sh says that there is no device where there is none, and else reports the device and the result of each test, sanitizer and bench; what failed,
        or showed nothing, makes its status 1.
Method  The script with a PATH of programs that answer as a machine with a GPU would."""

import pathlib
import re
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).with_name("run.sh")
TOOLS = ("bash", "dirname", "date", "uname", "sed", "grep", "git", "mktemp", "timeout", "tail", "cat", "env")
PASSED = "1/2 Test #7: gpu_ops ...............   Passed    1.25 sec"
SKIPPED = "2/2 Test #8: gpu_fidelity ..........***Skipped   0.04 sec"


class Report(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bin = pathlib.Path(folder.name) / "bin"
        self.build = pathlib.Path(folder.name) / "build"
        for made in (self.bin, self.build / "bench", self.build / "tests"):
            made.mkdir(parents=True)
        (self.build / "CTestTestfile.cmake").touch()
        for tool in TOOLS:
            found = subprocess.run(["which", tool], check=True, capture_output=True, text=True).stdout.strip()
            (self.bin / tool).symlink_to(found)

    def program(self, path, *lines):
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)

    def machine(self, tests=(PASSED,), sanitizer="exit 0", bench="echo '{\"requests\": 1}'"):
        self.program(self.bin / "nvidia-smi", "echo 'NVIDIA H100, 580.1, 81559 MiB'")
        self.program(self.bin / "nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.1'")
        self.program(self.bin / "ctest", *(f"echo '{line}'" for line in tests))
        self.program(self.bin / "compute-sanitizer", sanitizer)
        self.program(self.build / "bench" / "bench_step", bench)

    def run_script(self):
        environment = {"PATH": str(self.bin), "TMPDIR": str(self.bin)}
        return subprocess.run(["bash", SCRIPT, self.build], env=environment, capture_output=True, text=True, timeout=60)

    def test_without_a_device_it_runs_nothing_and_says_so(self):
        ended = self.run_script()
        self.assertEqual(ended.returncode, 77)
        self.assertIn("no NVIDIA device here: nvidia-smi is not installed; nothing was run", ended.stderr)
        self.assertEqual(ended.stdout, "")

    def test_a_driver_that_does_not_answer_is_no_device(self):
        self.program(self.bin / "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
        ended = self.run_script()
        self.assertEqual(ended.returncode, 77)
        self.assertIn("NVIDIA-SMI has failed", ended.stderr)

    def test_a_folder_without_tests_is_named(self):
        self.machine()
        (self.build / "CTestTestfile.cmake").unlink()
        ended = self.run_script()
        self.assertEqual(ended.returncode, 2)
        self.assertIn(f"{self.build} has no tests", ended.stderr)

    def test_the_report_has_device_toolkit_commit_and_each_result(self):
        self.machine()
        ended = self.run_script()
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertIn("| device, driver, memory | NVIDIA H100, 580.1, 81559 MiB |", ended.stdout)
        self.assertIn("| toolkit | CUDA 13.0 |", ended.stdout)
        self.assertRegex(ended.stdout, r"\| commit \| ([0-9a-f]{40}|unknown)")
        self.assertIn("| gpu_ops | passed | 1.25 s |", ended.stdout)
        for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
            self.assertIn(f"| compute-sanitizer {tool} | passed |", ended.stdout)
        for graphs in ("none", "full"):
            self.assertIn(f'| bench_step, 8 requests, graphs {graphs} | measured | `{{"requests": 1}}` |', ended.stdout)
        self.assertIn("Failed: 0.", ended.stdout)

    def test_what_failed_or_was_skipped_makes_the_status(self):
        for change, expected in (
            ({"tests": (PASSED, SKIPPED)}, "| gpu_fidelity | failed | Skipped, 0.04 s |"),
            ({"tests": ("No tests were found!!!",)}, "| tests labelled gpu | failed | none was run: was the CUDA plugin built? |"),
            ({"sanitizer": "echo '========= ERROR SUMMARY: 3 errors'; exit 99"}, "| compute-sanitizer memcheck | failed | ERROR SUMMARY: 3 errors |"),
            ({"bench": "echo 'bench_step: no usable GPU' >&2; exit 1"}, "| bench_step, 64 requests, graphs full | failed | bench_step: no usable GPU |"),
        ):
            with self.subTest(expected):
                self.machine(**change)
                ended = self.run_script()
                self.assertEqual(ended.returncode, 1, ended.stdout + ended.stderr)
                self.assertIn(expected, ended.stdout)
                self.assertIsNone(re.search(r"Failed: 0\.", ended.stdout))


if __name__ == "__main__":
    unittest.main(verbosity=2)
