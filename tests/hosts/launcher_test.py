#!/usr/bin/env python3
"""Goal    lockstep-run keeps over several hosts what it promises: environment, statuses, signals, and nobody left behind.
Method  Ranks are small shell programs; those of the second host share nothing with the launcher's but the network and one folder."""

import os
import pathlib
import signal
import subprocess
import unittest

import network
from hosts_group import HostsTest, launch, wait_for

LIMIT_SECONDS = 60
# $0 is the shared folder, $r the rank.
RANK = 'r=$OMPI_COMM_WORLD_RANK; '


class Launcher(HostsTest):
    def setUp(self):
        super().setUp()
        self.shared = pathlib.Path(self.network.folder.name, "shared")
        self.shared.mkdir()

    def start(self, program, *launcher_options, **settings):
        process = launch(self.network, "bash", "-c", RANK + program, str(self.shared), launcher_options=launcher_options, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, **settings)  # fmt: skip
        self.addCleanup(lambda: (process.kill(), process.wait(), process.stdout.close(), process.stderr.close()))
        return process

    def finish(self, process):
        """(status, stdout, stderr)."""
        out, errors = process.communicate(timeout=LIMIT_SECONDS)
        return process.returncode, out, errors

    def await_lines(self, name, count):
        file = self.shared / name
        wait_for(lambda: file.exists() and len(file.read_text().splitlines()) >= count, f"{count} lines in {name}")
        return sorted(file.read_text().splitlines())

    def assert_gone(self, processes):
        wait_for(lambda: not any(is_there(process) for process in processes), "the ranks to be gone")

    def test_each_rank_runs_on_its_own_host(self):
        status, out, errors = self.finish(self.start('echo "$r $(uname -n)"'))
        self.assertEqual((status, sorted(out.splitlines()), errors), (0, ["0 a", "1 b"], ""))

    def test_the_environment_of_lockstep_reaches_every_host_and_no_command_line(self):
        environment = {"LOCKSTEP_GROUP_SECRET": "a secret with  two spaces, 'quotes' and $(echo more)", "LOCKSTEP_KV_CACHE_MEMORY": "1GiB"}
        status, out, errors = self.finish(self.start('echo "$r $LOCKSTEP_KV_CACHE_MEMORY $LOCKSTEP_GROUP_SECRET"; ps -eo args >"$0/args.$r"', environment=environment))
        self.assertEqual(status, 0, errors)
        self.assertEqual(sorted(out.splitlines()), [f"{rank} 1GiB {environment['LOCKSTEP_GROUP_SECRET']}" for rank in (0, 1)])
        for rank in (0, 1):
            self.assertNotIn("two spaces", (self.shared / f"args.{rank}").read_text())

    def test_a_secret_is_made_up_for_all_hosts(self):
        _, out, _ = self.finish(self.start('echo "$LOCKSTEP_GROUP_SECRET"'))
        self.assertEqual(len(set(out.splitlines())), 1)
        self.assertEqual(len(out.splitlines()[0]), 64)

    def test_the_status_of_a_rank_on_another_host_is_recorded_and_returned(self):
        for status in (0, 5, 3):
            with self.subTest(status=status):
                folder = self.shared / f"status{status}"
                returned, _, errors = self.finish(self.start(f"exit $((r * {status}))", "--status-dir", str(folder)))
                self.assertEqual(returned, status, errors)
                self.assertEqual([(folder / f"rank.{rank}").read_text() for rank in (0, 1)], ["0\n", f"{status}\n"])

    def test_last_words_without_an_end_of_line_neither_get_lost_nor_hide_the_status(self):
        status, _, errors = self.finish(self.start('if [ $r = 1 ]; then printf "last words" >&2; exit 7; fi'))
        self.assertEqual((status, errors), (7, "last words\n"))

    def test_a_rank_that_is_killed_on_another_host_is_the_first_error(self):
        status, _, errors = self.finish(self.start("if [ $r = 1 ]; then kill -9 $$; fi; exit 0"))
        self.assertEqual(status, 137, errors)

    def test_a_rank_that_is_lost_with_its_wrapper_is_an_error(self):
        status, _, errors = self.finish(self.start("if [ $r = 1 ]; then kill -9 0; fi; exit 0"))
        self.assertEqual(status, 137, errors)

    def test_process_ids_of_another_host_are_not_taken_for_the_launchers_own(self):
        folder = self.shared / "status"
        process = self.start('trap "exit 0" USR1; echo $r >>"$0/ready"; while :; do sleep 0.05; done', "--status-dir", str(folder))
        self.await_lines("ready", 2)
        self.assertEqual(sorted(file.name for file in folder.glob("pid.*")), ["pid.0"])
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(self.finish(process)[0], 0)

    def test_signals_reach_the_ranks_of_every_host_once(self):
        process = self.start('trap "echo usr1 $r >>$0/got; exit 0" USR1; trap "echo usr2 $r >>$0/got" USR2; echo $r >>"$0/ready"; while :; do sleep 0.05; done')
        self.await_lines("ready", 2)
        process.send_signal(signal.SIGUSR2)
        self.assertEqual(self.await_lines("got", 2), ["usr2 0", "usr2 1"])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(process)[0], 0)
        self.assertEqual(self.await_lines("got", 4), ["usr1 0", "usr1 1", "usr2 0", "usr2 1"])

    def test_a_second_signal_ends_ranks_on_every_host_that_do_not_drain(self):
        process = self.start('trap ":" USR1; echo $$ >>"$0/ready"; while :; do sleep 0.05; echo $r >>"$0/alive"; done')
        ranks = [int(line) for line in self.await_lines("ready", 2)]
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        # Two that come at once may be one to the shell.
        wait_for(lambda: process.poll() is not None or process.send_signal(signal.SIGTERM), "the launcher to end")
        self.assertIn(self.finish(process)[0], (137, 143))
        self.assert_gone(ranks)

    def test_a_straggler_on_another_host_is_ended_after_the_grace(self):
        process = self.start('echo $$ >>"$0/ready"; if [ $r = 0 ]; then exit 5; fi; trap "" TERM; while :; do sleep 0.05; done', "--grace", "1")
        ranks = [int(line) for line in self.await_lines("ready", 2)]
        self.assertEqual(self.finish(process)[0], 5)
        self.assert_gone(ranks)

    def test_a_killed_launcher_leaves_no_rank_on_any_host(self):
        process = self.start('echo $$ >>"$0/ready"; while :; do sleep 0.05; done')
        ranks = [int(line) for line in self.await_lines("ready", 2)]
        process.kill()
        self.assert_gone(ranks)

    def test_the_words_of_a_rank_that_outlives_mpirun_are_not_lost(self):
        process = self.start('trap "" TERM; echo $r >>"$0/ready"; until [ -e "$0/mpirun_has_left" ]; do sleep 0.05; done; echo "rank $r is the last" >&2')
        self.await_lines("ready", 2)
        mpirun = next(entry for entry in self.network.processes_of("a") if pathlib.Path(f"/proc/{entry}/comm").read_text() == "mpirun\n")
        os.kill(mpirun, signal.SIGKILL)
        self.assert_gone([mpirun])
        (self.shared / "mpirun_has_left").touch()
        _, _, errors = self.finish(process)
        self.assertIn("rank 0 is the last\n", errors)

    def test_a_host_that_cannot_be_reached_is_an_error_that_names_it(self):
        os.unlink(pathlib.Path(self.network.folder.name, "b"))
        status, _, errors = self.finish(self.start("exit 0"))
        self.assertNotEqual(status, 0)
        self.assertIn("no host b", errors)


def is_there(process):
    return network.namespace_of(process) is not None


if __name__ == "__main__":
    network.enter_cluster()
    unittest.main()
