#!/usr/bin/env python3
"""Goal    Ranks that cannot form one group say so and leave within the start timeout: other versions, other options, another secret, another model.
Method  One rank is started differently, by a shell line around the daemon or by the test daemon's handshake."""

import time
import unittest

from fault_group import BAD_INPUT, PEER_LOST, SLACK_SECONDS, START_SECONDS, FaultTest

# Rank 1 differs; "$@" is the daemon with its arguments.
ON_RANK_1 = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then {}; fi; exec "$@"'


class Refusal(FaultTest):
    def refuse(self, case, statuses, patterns, **settings):
        """`statuses` and `patterns` by rank; the pattern is looked for in all that the rank logged as errors."""
        begin = time.time()
        group = self.start(**settings)
        returned = group.wait()
        for rank, (status, pattern) in enumerate(zip(statuses, patterns)):
            row = self.record(case, 1, rank, begin, group)
            self.assertEqual(row["status"], status, group.log())
            self.assertLess(row["left_s"], START_SECONDS + SLACK_SECONDS)
            line, _ = group.error_line(rank)
            self.assertRegex(line or "no error", pattern, group.log())
        self.assertEqual(returned, group.first_error(), group.log())
        self.assert_nothing_left(group)
        return group

    def test_two_versions_refuse_each_other(self):
        self.refuse("other version", [PEER_LOST] * 3, [r"handshake: protocol_version differs: members 0, 2 have \d+, member 1 has \d+.*install the same version"] * 3,
                    ranks=3, fault="other_protocol_version", fault_rank=1)  # fmt: skip

    def test_other_options_refuse_each_other(self):
        self.refuse("other options", [PEER_LOST] * 2, [r"handshake: config_hash differs: member 0 has 0x[0-9a-f]+, member 1 has 0x[0-9a-f]+.*same model, options"] * 2,
                    shell=ON_RANK_1.format('exec "$@" --max-num-batched-tokens 32'))  # fmt: skip

    def test_another_secret_is_refused(self):
        # Who is called waits longer than who calls: the stranger may have come before the true member.
        self.refuse("other secret", [BAD_INPUT, PEER_LOST], [r"rank 1 at .*secret", r"rank 0 at .*secret"], shell=ON_RANK_1.format("export LOCKSTEP_GROUP_SECRET=wrong"))

    def test_a_rank_without_its_model_says_which_and_the_others_leave(self):
        group = self.refuse("no model", [PEER_LOST, BAD_INPUT], [r"MPI_Init of rank 0 did not return within", r"/nowhere/at/all"],
                            shell=ON_RANK_1.format('exec "$@" --model /nowhere/at/all'))  # fmt: skip
        self.assertEqual(group.first_error(), BAD_INPUT)


if __name__ == "__main__":
    unittest.main()
