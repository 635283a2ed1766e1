"""Goal    When a rank dies by kill -9, or stops, wherever in its step, the others' waits end and name it, whether or not NCCL notices; a graph ends as well.
Method  A group of three under lockstep-run, on the simulated device and NCCL; the watch knows processes, as the daemon's knows connections."""

import os
import re
import subprocess
import tempfile
import unittest

LAUNCHER = os.environ["LOCKSTEP_LAUNCHER"]
RANK = os.environ["LOCKSTEP_LOSS_RANK"]
RANKS = 3
# Far below the 60 s that a wait may last, for the watch ends it; far above what it takes on a busy machine.
LIMIT_SECONDS = 40


def end_of_group(victim, spot, loss, seed):
    environment = dict(os.environ, LOCKSTEP_SIM_NCCL_LOSS=loss, LOCKSTEP_SIM_SEED=str(seed), LOCKSTEP_SIM_SCHEDULE="random")
    with tempfile.NamedTemporaryFile() as file:
        command = [LAUNCHER, "-n", str(RANKS), "--bind-to", "none", "--", RANK, str(victim), spot, file.name]
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS, check=False)
    return result.returncode, result.stdout


class LossTest(unittest.TestCase):
    def expect_named(self, victim, spot, loss, seed):
        status, text = end_of_group(victim, spot, loss, seed)
        self.assertEqual(status, 137, text)
        ends = dict(re.findall(r"rank (\d) ends: (.*)", text))
        self.assertEqual(set(ends), {str(rank) for rank in range(RANKS)} - {str(victim)}, text)
        for end in ends.values():
            self.assertRegex(end, rf"^peer_lost: .*rank {victim}: its process", text)

    def test_survivors_name_the_last_rank_when_nccl_notices_nothing(self):
        self.expect_named(2, "before-all-reduce", "silent", 1)

    def test_survivors_name_the_last_rank_when_nccl_notices(self):
        self.expect_named(2, "before-exchange", "told", 2)

    def test_survivors_name_the_first_rank_when_it_dies_in_an_exchange(self):
        self.expect_named(0, "in-exchange", "drawn", 3)

    def test_survivors_end_the_graph_that_waits_for_a_killed_rank_when_nccl_notices_nothing(self):
        self.expect_named(1, "before-graph", "silent", 4)

    def test_survivors_end_the_graph_that_waits_for_a_killed_rank_when_nccl_notices(self):
        self.expect_named(2, "before-graph", "told", 5)

    def test_survivors_end_the_graph_that_waits_for_a_stopped_rank(self):
        self.expect_named(0, "stop-before-graph", "silent", 6)


if __name__ == "__main__":
    unittest.main()
