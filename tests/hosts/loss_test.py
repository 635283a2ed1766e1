#!/usr/bin/env python3
"""Goal    A rank, a host or a link that is lost ends both sides in bounded time; each names the other, and no client on a survivor is left without a word.
Method  Both hosts stream; then the rank on the other host is killed, its host dies, or the link is cut."""

import os
import signal
import time
import unittest

import network
from hosts_group import KILLED, PEER_LOST, SLACK_SECONDS, STALL_SECONDS, HostsTest, Stream

BOUND_SECONDS = STALL_SECONDS + SLACK_SECONDS


class Loss(HostsTest):
    def start_streaming(self):
        group = self.start()
        # The answers are as long as the model's context allows: they still run when the loss comes.
        streams = [Stream(address, prompt="In the beginning", max_tokens=480) for address in group.addresses]
        for stream in streams:
            group.await_condition(lambda stream=stream: stream.tokens > 0, "a first token")
        return group, streams

    def await_exit(self, group, rank, process):
        begin = time.monotonic()
        group_has_left = False
        while not group_has_left:
            group_has_left = not is_running(process)
            self.assertLess(time.monotonic() - begin, BOUND_SECONDS, f"rank {rank} is still there:\n{group.log()}")
            time.sleep(0.01)  # between two looks

    def assert_told(self, group, stream):
        """The client of a survivor got the coded error, or had its whole answer before."""
        stream.join(timeout=30)
        self.assertFalse(stream.is_alive(), group.log())
        self.assertIsNone(stream.cut, group.log())
        if not stream.done:
            self.assertEqual((stream.error or {}).get("code"), "rank_lost", group.log())

    def assert_names(self, group, rank, other):
        lines = [line for line in group.log_of(rank).splitlines() if f" error [rank {rank}/" in line]
        self.assertTrue(any(f"rank {other}" in line for line in lines), f"rank {rank} names no lost rank {other}:\n{group.log_of(rank)}\nThe launcher saw:\n{group.log()}")

    def test_a_rank_killed_on_the_other_host_is_named_and_both_statuses_are_recorded(self):
        group, streams = self.start_streaming()
        survivor = group.pid(0)
        os.kill(group.pid(1), signal.SIGKILL)
        self.await_exit(group, 0, survivor)
        self.assertEqual(group.wait(), KILLED, group.log())
        self.assertEqual([group.recorded(0), group.recorded(1)], [PEER_LOST, KILLED], group.log())
        self.assert_told(group, streams[0])
        self.assert_names(group, 0, 1)

    def test_a_rank_killed_on_the_launching_host_is_named_by_the_other(self):
        group, streams = self.start_streaming()
        survivor = group.pid(1)
        os.kill(group.pid(0), signal.SIGKILL)
        self.await_exit(group, 1, survivor)
        self.assertEqual(group.wait(), KILLED, group.log())
        self.assertEqual([group.recorded(0), group.recorded(1)], [KILLED, PEER_LOST], group.log())
        self.assert_told(group, streams[1])
        self.assert_names(group, 1, 0)

    def test_a_stopped_rank_on_the_other_host_is_named_within_the_stall_timeout(self):
        group, streams = self.start_streaming()
        survivor, victim = group.pid(0), group.pid(1)
        os.kill(victim, signal.SIGSTOP)
        self.await_exit(group, 0, survivor)
        self.assert_told(group, streams[0])
        self.assert_names(group, 0, 1)
        os.kill(victim, signal.SIGKILL)
        self.assertEqual(group.wait(), KILLED, group.log())
        self.assertEqual([group.recorded(0), group.recorded(1)], [PEER_LOST, KILLED], group.log())

    def part(self, part):
        group, streams = self.start_streaming()
        processes = [group.pid(0), group.pid(1)]
        part()
        for rank, process in enumerate(processes):
            self.await_exit(group, rank, process)
        self.assert_names(group, 0, 1)
        self.assert_names(group, 1, 0)
        # Of the other side the launcher hears nothing any more: to it that rank is lost as if it were killed.
        self.assertEqual(group.wait(90), KILLED, group.log())
        self.assertEqual(group.recorded(0), PEER_LOST)
        self.assert_told(group, streams[0])

    def test_a_link_that_loses_everything_ends_both_sides(self):
        self.part(lambda: self.network.cut("b"))

    def test_an_interface_that_goes_down_ends_both_sides(self):
        self.part(lambda: self.network.unplug("b"))

    def test_a_host_that_dies_ends_the_other(self):
        group, streams = self.start_streaming()
        survivor = group.pid(0)
        self.network.kill_processes("b")
        self.await_exit(group, 0, survivor)
        self.assertEqual(group.wait(90), KILLED, group.log())
        self.assertEqual(group.recorded(0), PEER_LOST)
        self.assert_told(group, streams[0])
        self.assert_names(group, 0, 1)


def is_running(process):
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


if __name__ == "__main__":
    network.enter_cluster()
    unittest.main()
