#!/usr/bin/env python3
"""Goal    The bytes that ranks count as sent for exchanges are those that the links between their hosts carried.
Method  Prompts of whole steps on two hosts; the metric of each rank against its interface's own counter over the same time."""

import concurrent.futures
import unittest

import network
from hosts_group import HostsTest, call

PROMPT = "And it came to pass in those days, that there went out a decree. " * 40
PROMPTS = 16  # for each host: what else is on the link, headers, heartbeats and answers, must be small beside the rows
TOLERANCE = 0.05


class Wire(HostsTest):
    def counted(self, group, rank):
        lines = call(group.addresses[rank], "GET", "/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("lockstep_wire_bytes_total"))

    def test_ranks_count_what_the_links_carry(self):
        for options in ((), ("--micro-batches", "2"), ("--combine", "per-rank")):
            with self.subTest(options=options):
                group = self.start(*options)
                names = list(self.network.hosts)
                wire = [-self.counted(group, rank) for rank in (0, 1)]
                link = [-self.network.bytes_sent(name) for name in names]
                with concurrent.futures.ThreadPoolExecutor(2 * PROMPTS) as clients:
                    answers = clients.map(lambda rank: group.complete(rank, prompt=PROMPT, max_tokens=1, ignore_eos=True), [0, 1] * PROMPTS)
                    self.assertEqual({status for status, _ in answers}, {200})
                for rank, name in enumerate(names):
                    link[rank] += self.network.bytes_sent(name)
                    wire[rank] += self.counted(group, rank)
                    self.assertGreater(wire[rank], 1e6)
                    self.assertAlmostEqual(link[rank] / wire[rank], 1, delta=TOLERANCE, msg=f"rank {rank}: {wire[rank]:.0f} bytes counted, {link[rank]} on the link")
                group.drain()
                self.assertEqual(group.wait(), 0, group.log())


if __name__ == "__main__":
    network.enter_cluster()
    unittest.main()
