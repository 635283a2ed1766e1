#!/usr/bin/env python3
"""Goal    A rank that comes to another step, epoch, configuration or number of rows than the others stops the whole group within that step; the logs name the
        field, the ranks and the values, and no client is left without a word.
Method  Three ranks stream; then one of them changes what it gives to MPI, on the driver's word."""

import re
import unittest

from fault_group import CONTEXT, PEER_LOST, SLACK_SECONDS, STALL_SECONDS, Client, FaultTest, wait_for

LIAR = 1


class Divergence(FaultTest):
    def diverge(self, fault, pattern, sayers=(0, 1, 2)):
        """`sayers`: the ranks that see the fault themselves; the others are told."""
        group = self.start(ranks=3, fault=fault, fault_rank=LIAR)
        group.await_idle()
        clients = [Client(port, 4, CONTEXT - 8) for port in group.ports]
        for client in clients:
            wait_for(lambda client=client: client.tokens > 0, "a first token")
        begin = group.arm()
        self.assertEqual(group.wait(), PEER_LOST, group.log())
        steps = set()
        for rank in range(3):
            row = self.record(fault, LIAR, rank, begin, group)
            self.assertEqual(row["status"], PEER_LOST, group.log())
            self.assertLess(row["left_s"], STALL_SECONDS + SLACK_SECONDS)
            line, _ = group.error_line(rank)
            self.assertIsNotNone(line, group.log())
            self.assertIn("diverged", line)
            if rank in sayers:
                self.assertRegex(line, pattern)
            steps.update(re.findall(r"\bstep (\d+), (?:agreement|layer)\b", line))
        self.assertEqual(len(steps), 1, f"left in different steps: {steps}\n{group.log()}")
        for client in clients:
            client.join(timeout=60)
            self.assertIsNone(client.cut, group.log())
            self.assertEqual((client.error or {}).get("code"), "rank_lost", group.log())
        self.assert_nothing_left(group)

    def test_in_the_step_is_named_with_all_values(self):
        for fault in ("other_step", "other_step_high"):
            with self.subTest(fault=fault):
                self.diverge(fault, rf"step differs: members 0, 2 have \d+, member {LIAR} has \d+")

    def test_in_the_epoch_is_named_with_all_values(self):
        self.diverge("other_epoch", rf"epoch differs: members 0, 2 have 0, member {LIAR} has 1")

    def test_in_the_configuration_is_named_with_all_values(self):
        self.diverge("other_config_hash", rf"config_hash differs: members 0, 2 have 0x[0-9a-f]+, member {LIAR} has 0x[0-9a-f]+")

    def test_in_what_a_column_says_is_noticed_by_its_checksum(self):
        self.diverge("other_tokens", rf"checksum .*member {LIAR}\b")

    def test_more_rows_than_agreed_are_refused_with_both_numbers(self):
        self.diverge("more_rows", rf"member {LIAR} to member \d at step \d+, layer \d+, .*rows is 1\d{{5}}, (agreed are 0 to|ours is) \d+", sayers=(0, 2))

    def test_a_longer_message_than_agreed_is_refused_with_the_limit(self):
        self.diverge("longer_message", rf"rank {LIAR} sent more than the \d+ bytes.* member {LIAR} may send at most \d+ rows", sayers=(0, 2))


if __name__ == "__main__":
    unittest.main()
