#!/usr/bin/env python3
"""Goal    A drain ends nothing that was accepted: streams run to their end on every rank, then all ranks leave with 0.
Method  A long stream on each rank; the signal comes when the first event of each has arrived."""

import signal
import unittest

from group import Group, Stream, status_of, wait_for

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


if __name__ == "__main__":
    unittest.main()
