#!/usr/bin/env python3
"""Goal    The service starts, serves, comes back after each kind of failure, and drains, under a real systemd.
Method  The package on a booted Debian with two ranks; ranks are killed and stopped from the outside; systemd's own word and the journal say what happened."""

import os
import re
import signal
import tempfile
import unittest

from machine import Machine, Stream, build_package, call, complete, status_of, wait_for

PORTS = (8000, 8001)
PROMPT = "And the LORD spake unto Moses, saying,"
# Short limits, so that the test waits less; all of them are settings that an administrator has.
CONFIGURATION = "port = 8000\nstall-timeout = 3s\n"
DROP_IN = "[Service]\nWatchdogSec=8\nTimeoutAbortSec=2\n"
STREAM_TOKENS = 400


class Service(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            package = build_package(folder)
            cls.machine = Machine()
            cls.addClassCleanup(cls.machine.close)
            cls.machine.install(package)
        cls.machine.write("/etc/lockstep/lockstep.conf", CONFIGURATION)
        cls.machine.write("/etc/default/lockstep", "RANKS=2\nLAUNCHER_OPTIONS=--grace 2\n")
        for unit in ("lockstep", "lockstep@"):
            cls.machine.write(f"/etc/systemd/system/{unit}.service.d/limits.conf", DROP_IN)
        cls.machine.run("systemctl", "daemon-reload")

    def setUp(self):
        self.machine.run("systemctl", "stop", "lockstep", "lockstep@pair")
        self.machine.run("systemctl", "reset-failed")
        self.cursor = self.machine.cursor()
        self.machine.run("systemctl", "start", "lockstep")

    def journal(self, unit="lockstep"):
        return self.machine.journal(self.cursor, unit)

    def assert_serving(self):
        for port in PORTS:
            answer = complete(port, prompt=PROMPT, max_tokens=4, temperature=0)
            self.assertEqual(answer.status, 200, answer.text + self.journal())

    def assert_restarts(self):
        """systemd starts the group again by itself, and it serves."""
        wait_for(lambda: self.machine.property("NRestarts") == "1" and self.machine.property("ActiveState") == "active", "the service to be back")
        self.assert_serving()

    def assert_journal_is_clean(self, unit="lockstep"):
        journal = self.journal(unit)
        found = [line for line in journal.splitlines() if re.search(r" (warning|error|critical) \[rank|[Ff]ailed|denied|not permitted", line) and "share" not in line]
        self.assertEqual(found, [], journal)

    def test_is_ready_on_every_rank_when_systemctl_start_returns(self):
        self.assertEqual([status_of(port, "/ready") for port in PORTS], [200, 200])
        self.assertEqual(self.machine.property("StatusText"), "serving")
        self.assertEqual(len(self.machine.ranks()), 2)
        self.assert_serving()
        self.assert_journal_is_clean()

    def test_runs_as_its_own_user_without_capabilities(self):
        for process in self.machine.ranks():
            with open(f"/proc/{process}/status") as file:
                status = dict(line.rstrip().split(":\t", 1) for line in file if ":\t" in line)
            self.assertNotEqual(status["Uid"].split()[0], "0")
            self.assertEqual((int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"], status["Seccomp"]), (0, 0, "1", "2"))

    def test_comes_back_when_a_rank_is_killed(self):
        os.kill(self.machine.ranks()[-1], signal.SIGKILL)
        self.assert_restarts()

    def test_comes_back_when_a_rank_hangs_as_its_peers_leave(self):
        for victim in (0, -1):
            with self.subTest(victim=victim):
                self.setUp()
                os.kill(self.machine.ranks()[victim], signal.SIGSTOP)
                self.assert_restarts()
                self.assertRegex(self.journal(), r"error \[rank \d/2\] peer_lost: .*no heartbeat")

    def test_comes_back_by_the_watchdog_when_all_ranks_hang(self):
        for process in self.machine.ranks():
            os.kill(process, signal.SIGSTOP)
        self.assert_restarts()
        self.assertIn("Watchdog timeout", self.journal())

    def test_lets_a_running_stream_end_when_it_is_stopped(self):
        streams = [Stream(port, prompt=PROMPT, max_tokens=STREAM_TOKENS, temperature=0, ignore_eos=True) for port in PORTS]
        events = [iter(stream) for stream in streams]
        for stream in events:
            next(stream)
        self.machine.run("systemctl", "stop", "--no-block", "lockstep")
        for stream, rest in zip(streams, events):
            last = list(rest)[-1]
            self.assertTrue(stream.done)
            self.assertEqual(last["choices"][0]["finish_reason"], "length")
            stream.close()
        wait_for(lambda: self.machine.property("ActiveState") == "inactive", "the service to have stopped")
        self.assertEqual((self.machine.property("Result"), self.machine.property("ExecMainStatus")), ("success", "0"))
        self.assertEqual(self.machine.ranks(), [])
        self.assert_journal_is_clean()

    def test_is_not_restarted_when_its_configuration_is_wrong(self):
        self.machine.run("systemctl", "stop", "lockstep")
        self.machine.write("/etc/lockstep/lockstep.conf", CONFIGURATION + "max-num-sqs = 3\n")
        self.addCleanup(self.machine.write, "/etc/lockstep/lockstep.conf", CONFIGURATION)
        self.machine.run("systemctl", "start", "lockstep", check=False)
        self.assertEqual((self.machine.property("ActiveState"), self.machine.property("ExecMainStatus")), ("failed", "2"))
        self.assertEqual(self.machine.property("NRestarts"), "0")
        self.assertIn('did you mean "max-num-seqs"?', self.journal())

    def test_reads_its_keys_again_when_it_is_reloaded(self):
        self.machine.run("systemctl", "stop", "lockstep")
        self.machine.write("/etc/lockstep/keys", "first\n")
        self.machine.write("/etc/lockstep/lockstep.conf", CONFIGURATION + "api-key-file = /etc/lockstep/keys\n")
        self.addCleanup(self.machine.write, "/etc/lockstep/lockstep.conf", CONFIGURATION)
        self.machine.run("systemctl", "start", "lockstep")
        ranks = self.machine.ranks()
        self.assertEqual(self.statuses("first"), [200, 200])
        self.machine.write("/etc/lockstep/keys", "second\n")
        self.machine.run("systemctl", "reload", "lockstep")
        wait_for(lambda: self.statuses("second") == [200, 200], "both ranks to take the new key")
        self.assertEqual((self.statuses("first"), self.machine.ranks()), ([401, 401], ranks))

    def statuses(self, key):
        return [call(port, "GET", "/v1/models", headers={"Authorization": f"Bearer {key}"}).status for port in PORTS]

    def test_of_a_host_file_serves_and_drains(self):
        self.machine.run("systemctl", "stop", "lockstep")
        self.machine.write("/etc/lockstep/pair", "localhost slots=2\n")
        self.machine.run("systemctl", "start", "lockstep@pair")
        self.assert_serving()
        self.machine.run("systemctl", "stop", "lockstep@pair")
        self.assertEqual(self.machine.property("Result", "lockstep@pair"), "success")
        self.assert_journal_is_clean("lockstep@pair")


if __name__ == "__main__":
    unittest.main()
