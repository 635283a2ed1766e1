#!/usr/bin/env python3
"""Goal    The bytes that ranks count as sent for exchanges are those that the links between their hosts carried.
Method  Prompts of whole steps on two hosts, of each as many, of one ten times as many, and of one alone; the metric of each rank against its interface's own counter
        over the same time. A prompt has the same answer wherever it is asked."""

import concurrent.futures
import unittest

import network
from hosts_group import HostsTest, call

PROMPT = "And it came to pass in those days, that there went out a decree. " * 40
# Ranks that are asked. Many prompts: what else is on the link, headers, heartbeats and answers, must be small beside the rows.
SHARES = {"even": [0, 1] * 16, "ten to one": ([0] * 10 + [1]) * 3, "one rank without tokens": [0] * 32}
TOLERANCE = 0.05


class Wire(HostsTest):
    def counted(self, group, rank):
        lines = call(group.addresses[rank], "GET", "/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("lockstep_wire_bytes_total"))

    def check_share(self, group, ranks):
        names = list(self.network.hosts)
        wire = [-self.counted(group, rank) for rank in (0, 1)]
        link = [-self.network.bytes_sent(name) for name in names]
        with concurrent.futures.ThreadPoolExecutor(len(ranks)) as clients:
            answers = list(clients.map(lambda rank: group.complete(rank, prompt=PROMPT, max_tokens=1, ignore_eos=True), ranks))
        self.assertEqual({status for status, _ in answers}, {200})
        self.assertEqual(len({answer["choices"][0]["text"] for _, answer in answers}), 1)
        for rank, name in enumerate(names):
            link[rank] += self.network.bytes_sent(name)
            wire[rank] += self.counted(group, rank)
            self.assertGreater(wire[rank], 1e6)
            self.assertAlmostEqual(link[rank] / wire[rank], 1, delta=TOLERANCE, msg=f"rank {rank}: {wire[rank]:.0f} bytes counted, {link[rank]} on the link")

    def test_ranks_count_what_the_links_carry(self):
        for options in ((), ("--micro-batches", "2"), ("--combine", "per-rank")):
            group = self.start(*options)
            for share, ranks in SHARES.items():
                with self.subTest(options=options, share=share):
                    self.check_share(group, ranks)
            with self.subTest(options=options):
                group.drain()
                self.assertEqual(group.wait(), 0, group.log())


if __name__ == "__main__":
    network.enter_cluster()
    unittest.main()
