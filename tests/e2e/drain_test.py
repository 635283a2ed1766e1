#!/usr/bin/env python3
"""Goal    A drain ends nothing that was accepted: streams run to their end on every rank, then all ranks leave with 0.
Method  A long stream on each rank; the signal comes when the first event of each has arrived, or before the rank could have opened a port."""

import fcntl
import os
import pathlib
import signal
import subprocess
import unittest

from group import BINARY, LIMIT_SECONDS, Group, Stream, daemon_environment, status_of, wait_for

TOKENS = 400


class Drain(unittest.TestCase):
    def setUp(self):
        self.group = Group()
        self.addCleanup(self.group.close)

    def open_streams(self):
        streams = [Stream(port, prompt="In the beginning", max_tokens=TOKENS, temperature=0, ignore_eos=True, stream_options={"include_usage": True})
                   for port in self.group.ports]  # fmt: skip
        return [(stream, iter(stream)) for stream in streams]

    def assert_streams_end(self, streams):
        for stream, events in streams:
            last = list(events)[-1]
            self.assertTrue(stream.done)
            self.assertEqual(last["usage"]["completion_tokens"], TOKENS)
            stream.close()

    def assert_group_ends(self):
        self.assertEqual(self.group.wait(), 0, self.group.log())
        self.assertEqual(self.group.complaints(), [])

    def test_lets_running_streams_end_and_leaves_with_zero_when_the_launcher_gets_sigusr1(self):
        streams = self.open_streams()
        for _, events in streams:
            next(events)
        self.group.drain()
        self.assert_streams_end(streams)
        self.assert_group_ends()

    def test_of_idle_ranks_leaves_with_zero(self):
        self.group.drain()
        self.assert_group_ends()

    def test_turns_ready_off_on_every_rank(self):
        self.group.drain()
        for port in self.group.ports:
            wait_for(lambda port=port: status_of(port, "/ready") != 200, "ready to be off")
        self.assert_group_ends()

    def test_once_more_is_harmless(self):
        streams = self.open_streams()
        for _, events in streams:
            next(events)
        self.group.drain()
        self.group.process.send_signal(signal.SIGUSR1)
        self.assert_streams_end(streams)
        self.assert_group_ends()

class EarlySignal(unittest.TestCase):
    """The log's pipe is full, so that the rank stands at its first line, long before it has opened a port, until the pipe is read."""

    def test_before_a_rank_listens_to_signals_is_a_drain_too(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.write(writer, b"." * fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ))
        rank = subprocess.Popen([BINARY, "--port", "0"], stdin=subprocess.DEVNULL, stderr=writer, env=daemon_environment())
        self.addCleanup(rank.kill)
        os.close(writer)
        wait_for(lambda: self.holds_or_handles(rank.pid, signal.SIGTERM), "the rank to expect signals")
        rank.terminate()
        with open(reader, "rb", closefd=False) as log:
            said = log.read().decode().lstrip(".")
        self.assertEqual(rank.wait(timeout=LIMIT_SECONDS), 0, said)
        self.assertIn("asked to drain", said)

    @staticmethod
    def holds_or_handles(process, number):
        lines = pathlib.Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
        masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk:", "SigCgt:"))]
        return any(mask >> (number - 1) & 1 for mask in masks)


if __name__ == "__main__":
    unittest.main()
