#!/usr/bin/env python3
"""Goal    lockstep-service starts as many ranks as there should be, waits longer after each failure, and says what is wrong with a host file.
Method  The script itself, with programs before it on the path that print how they were called: lockstep-run, lockstepd and sleep."""

import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "systemd/lockstep-service"
USAGE = 64


class ServiceScript(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.add_program("lockstep-run", 'echo "lockstep-run $*"')
        self.add_program("lockstepd", 'echo "group 1 rank"; echo "device   cpu with avx2, 1 core a rank"')
        self.add_program("sleep", 'echo "sleep $*"')

    def add_program(self, name, body):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run_script(self, *arguments, **environment):
        path = f"{self.folder}:/usr/bin:/bin"
        return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False,
                              env={"PATH": path, "RUNTIME_DIRECTORY": str(self.folder), **environment})  # fmt: skip

    def hosts(self, text):
        file = self.folder / "hosts"
        file.write_text(text)
        return self.run_script("hosts", str(file))

    def end(self, result):
        self.assertEqual(self.run_script("note", SERVICE_RESULT=result).returncode, 0)

    def delay(self):
        """Seconds before the next attempt."""
        return int((self.run_script("wait").stdout or "sleep 0").split()[1])

    def delays(self, attempts):
        """Before attempts that all fail."""
        found = []
        for _ in range(attempts):
            found.append(self.delay())
            self.end("exit-code")
        return found

    def test_starts_as_many_ranks_as_it_is_told(self):
        self.assertEqual(self.run_script("host", RANKS="3").stdout, "lockstep-run -n 3 -- lockstepd\n")

    def test_passes_the_launchers_options_on(self):
        self.assertEqual(self.run_script("host", RANKS="2", LAUNCHER_OPTIONS="--grace 5").stdout, "lockstep-run -n 2 --grace 5 -- lockstepd\n")

    def test_starts_one_rank_a_numa_node_without_gpus(self):
        nodes = len(list(pathlib.Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1
        for environment in ({}, {"RANKS": "auto"}):
            self.assertEqual(self.run_script("host", **environment).stdout, f"lockstep-run -n {nodes} -- lockstepd\n")

    def test_starts_one_rank_a_gpu_that_cuda_shows(self):
        self.add_program("lockstepd", 'echo "group 1 rank"; echo "device   cuda 0"')
        gpus = len(list(pathlib.Path("/dev").glob("nvidia[0-9]*"))) or 1
        for environment, ranks in (({}, gpus), ({"CUDA_VISIBLE_DEVICES": "2"}, 1), ({"CUDA_VISIBLE_DEVICES": "0,3, 5"}, 3), ({"CUDA_VISIBLE_DEVICES": "0,1,-1,2"}, 2),
                                   ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"}, 2),
                                   ({"CUDA_VISIBLE_DEVICES": ""}, 1)):  # fmt: skip
            self.assertEqual(self.run_script("host", **environment).stdout, f"lockstep-run -n {ranks} -- lockstepd\n", environment)

    def test_ends_with_the_daemons_status_when_its_options_are_wrong(self):
        self.add_program("lockstepd", 'echo "lockstepd: --port: wrong" >&2; exit 2')
        result = self.run_script("host", RANKS="auto")
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertIn("--port", result.stderr)

    def test_refuses_a_number_of_ranks_that_is_none(self):
        for ranks in ("0", "two", "-1", "1.5"):
            result = self.run_script("host", RANKS=ranks)
            self.assertEqual((result.returncode, result.stdout), (USAGE, ""), ranks)
            self.assertIn(f"'{ranks}'", result.stderr)

    def test_adds_up_the_slots_of_a_host_file(self):
        result = self.hosts("# two hosts\nleft slots=2\n\nright   slots = 3 max_slots=8 # of eight\n")
        self.assertEqual(result.stdout, f"lockstep-run -n 5 --hostfile {self.folder}/hosts -- lockstepd\n")

    def test_takes_the_most_that_a_host_may_have_for_no_number_of_ranks(self):
        self.assertIn(" -n 2 ", self.hosts("left max_slots=8 slots=2\n").stdout)
        self.assertIn("line 1 has no slots=N", self.hosts("left max_slots=8\n").stderr)

    def test_refuses_a_host_file_without_slots_by_the_line(self):
        result = self.hosts("left slots=2\nright\n")
        self.assertEqual(result.returncode, USAGE)
        self.assertIn("line 2 has no slots=N", result.stderr)

    def test_refuses_a_host_file_that_names_nobody(self):
        for text in ("", "# nobody\n", "left slots=0\n"):
            self.assertEqual(self.hosts(text).returncode, USAGE)

    def test_refuses_a_host_file_that_is_not_there(self):
        result = self.run_script("hosts", str(self.folder / "absent"))
        self.assertEqual(result.returncode, USAGE)
        self.assertIn("absent", result.stderr)

    def test_waits_not_at_first_and_twice_as_long_after_each_failure_up_to_a_minute(self):
        self.assertEqual(self.delays(10), [0, 1, 2, 4, 8, 16, 32, 60, 60, 60])

    def test_forgets_failures_when_a_start_lasted(self):
        self.delays(5)
        self.delay()
        (self.folder / "started").write_text("1000000000\n")  # in 2001
        self.end("watchdog")
        self.assertEqual(self.delay(), 1)

    def test_forgets_failures_when_it_was_stopped(self):
        self.delays(5)
        self.end("success")
        self.assertEqual(self.delay(), 0)

    def test_does_not_wait_when_it_is_restarted(self):
        self.assertEqual(self.delay(), 0)
        self.end("success")
        self.assertEqual(self.delay(), 0)

    def test_refuses_what_it_does_not_know(self):
        for arguments in ((), ("start",), ("hosts",)):
            self.assertEqual(self.run_script(*arguments).returncode, USAGE)


if __name__ == "__main__":
    unittest.main()
