#!/usr/bin/env python3
"""Goal    The chart's launch.sh finds the pods of a group, waits for their sshd, and starts as many ranks as there are devices; a pod that goes drains its ranks first.
Method  The script beside a lockstep-run that prints how it was called; a listening socket on loopback stands for the workers' sshd."""

import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "helm/lockstep/files/launch.sh"


class Launch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        launcher = self.folder / "lockstep-run"
        launcher.write_text('#!/bin/sh\necho "$*"\nwhile [ "$1" != --hostfile ]; do shift; done\ncat "$2"\n')
        launcher.chmod(0o755)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.socket.close)

    def lead(self, *arguments, **environment):
        base = {"PATH": f"{self.folder}:/usr/bin:/bin", "TMPDIR": str(self.folder), "GROUP_NODES": "2", "RANKS_A_NODE": "4", "MPI_PORT": "24000", "START_SECONDS": "60",
                "SSH_PORT": str(self.socket.getsockname()[1]), "MPI_HOSTS": str(self.folder / "hosts")}  # fmt: skip
        return subprocess.run(["bash", SCRIPT, *(arguments or ["leader"])], env={**base, **environment}, capture_output=True, text=True, timeout=60, check=False)

    def test_starts_all_ranks_on_the_hosts_of_an_mpi_job(self):
        (self.folder / "hosts").write_text("launcher.demo.serving.svc slots=4\nlocalhost slots=4\n")
        result = self.lead()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.startswith("-n 8 --hostfile "), result.stdout)
        self.assertTrue(result.stdout.endswith("-- lockstepd\nlauncher.demo.serving.svc slots=4\nlocalhost slots=4\n"), result.stdout)

    def test_keeps_open_mpi_to_the_ports_that_the_network_policy_names(self):
        (self.folder / "hosts").write_text("launcher\nlocalhost\n")
        output = self.lead().stdout
        self.assertIn("oob_tcp_dynamic_ipv4_ports 24000-24127 ", output)
        first, count = (int(number) for number in re.search(r"btl_tcp_port_min_v4 (\d+) --mca btl_tcp_port_range_v4 (\d+) ", output).groups())
        self.assertEqual((first, first + count), (24128, 24256))
        self.assertIn("StrictHostKeyChecking=yes", output)

    def test_passes_options_to_the_launcher_and_variables_to_all_pods(self):
        (self.folder / "hosts").write_text("launcher\nlocalhost\n")
        output = self.lead("leader", "--bind-to", "core", RANKS_ENV="A B").stdout
        self.assertRegex(output, r"^-n 8 --hostfile \S+ --bind-to core --mpi -x A -x B --mca ")

    def test_names_the_worker_of_a_leader_worker_set_that_does_not_answer(self):
        result = self.lead(LWS_LEADER_ADDRESS="demo-lockstep-1.demo-lockstep.invalid", START_SECONDS="0")
        self.assertEqual(result.returncode, 64)
        self.assertIn("no answer from demo-lockstep-1-1.demo-lockstep.invalid port", result.stderr)

    def test_refuses_a_group_of_another_size_than_it_was_told(self):
        (self.folder / "hosts").write_text("launcher\n")
        result = self.lead()
        self.assertEqual(result.returncode, 64)
        self.assertIn("expected 2 hosts, found: launcher", result.stderr)

    def test_drain_asks_the_ranks_of_the_pod_and_waits_until_they_have_left(self):
        processes = self.folder / "processes"
        processes.mkdir()
        for name, count in (("lockstepd", 2), ("bystander", 1)):
            program = self.folder / name
            # A rank that takes its time: it leaves a word before its end, and ends only after that.
            program.write_text(f'#!/bin/bash\ntrap \'echo "$$" >>{self.folder}/drained; exit 0\' USR1\necho up\nwhile true; do read -rt 0.05 <> <(:); done\n')
            program.chmod(0o755)
            for _ in range(count):
                rank = subprocess.Popen([program], stdout=subprocess.PIPE, text=True)
                self.addCleanup(rank.wait)
                self.addCleanup(rank.kill)
                self.addCleanup(rank.stdout.close)
                rank.stdout.readline()
                (processes / str(rank.pid)).symlink_to(f"/proc/{rank.pid}")
                if name == "lockstepd":
                    threading.Thread(target=rank.wait, daemon=True).start()  # a process that nobody has waited for keeps its name
                else:
                    bystander = rank
        result = self.lead("drain", "0", PROCESSES=str(processes))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len((self.folder / "drained").read_text().split()), 2)
        self.assertIsNone(bystander.poll())

    def test_drain_of_a_pod_without_ranks_is_over_at_once(self):
        (self.folder / "none").mkdir()
        self.assertEqual(self.lead("drain", "0", PROCESSES=str(self.folder / "none")).returncode, 0)

    def test_says_what_is_missing_when_nothing_tells_who_belongs_to_the_group(self):
        self.assertIn("LWS_LEADER_ADDRESS", self.lead().stderr)
        self.assertEqual(self.lead("boss").returncode, 64)


if __name__ == "__main__":
    unittest.main()
