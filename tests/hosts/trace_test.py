#!/usr/bin/env python3
"""Goal    The traces of ranks whose clocks are hours apart are merged on one clock.
Method  The second host's monotonic clock is shifted by a time namespace; the merged trace must show what the agreement makes true of real time."""

import json
import re
import subprocess
import sys
import unittest

import network
from hosts_group import PORT, REPOSITORY, HostsTest, call

AHEAD_SECONDS = 12345
TOOL = REPOSITORY / "scripts/lockstep-trace"


class Trace(HostsTest):
    settings = {"monotonic_offsets_s": {"b": AHEAD_SECONDS}}

    def merged_by_tool(self, group):
        urls = [f"http://{address}:{PORT}" for address in group.addresses]
        done = subprocess.run([sys.executable, TOOL, "--steps", "10000", *urls], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        differences = dict(re.findall(r"rank (\d+): clock ([+-][\d.]+) s", done.stderr))
        return json.loads(done.stdout)["traceEvents"], {int(rank): float(value) for rank, value in differences.items()}

    def merged_by_rank(self, group, rank):
        status, answer = call(group.addresses[rank], "GET", "/debug/trace?steps=10000")
        self.assertEqual((status, answer["metadata"]["clock_of_rank"], answer["metadata"]["missing"]), (200, rank, []))
        return answer["traceEvents"], {clock["rank"]: clock["clock_ahead_us"] / 1e6 for clock in answer["metadata"]["ranks"]}

    def assert_on_one_clock(self, events):
        spans = [event for event in events if event["ph"] == "X" and event["name"] == "agree"]
        agreed = [{span["args"]["step"]: span for span in spans if span["pid"] == rank} for rank in (0, 1)]
        common = agreed[0].keys() & agreed[1].keys()
        self.assertGreaterEqual(len(common), 32)
        for step in common:
            first, second = agreed[0][step], agreed[1][step]
            self.assertGreaterEqual(first["ts"] + first["dur"] + 0.01, second["ts"])
            self.assertGreaterEqual(second["ts"] + second["dur"] + 0.01, first["ts"])

    def test_ranks_with_shifted_clocks_lie_on_one_clock_whoever_merges(self):
        group = self.start()
        for rank in (0, 1):
            self.assertEqual(group.complete(rank, prompt="In the beginning", max_tokens=32, ignore_eos=True)[0], 200)
        for ahead, (events, differences) in ((AHEAD_SECONDS, self.merged_by_tool(group)), (AHEAD_SECONDS, self.merged_by_rank(group, 0)),
                                             (-AHEAD_SECONDS, self.merged_by_rank(group, 1))):  # fmt: skip
            self.assertAlmostEqual(differences[1 if ahead > 0 else 0], ahead, delta=0.01)
            self.assert_on_one_clock(events)

    def test_a_rank_that_does_not_answer_is_named(self):
        done = subprocess.run([sys.executable, TOOL, "http://10.77.0.1:1"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("http://10.77.0.1:1 gave no trace", done.stderr)


if __name__ == "__main__":
    network.enter_cluster()
    unittest.main()
