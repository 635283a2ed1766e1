#!/usr/bin/env python3
"""Goal    What panels and alerts ask for, a running group gives; what clients saw is what Prometheus sums up; a stopped rank is named by the right alerts.
Method  A real Prometheus with the rules as they are scrapes two ranks under load each second; every query of the dashboard, and every selector of the rules,
        is asked; then one rank is stopped. What only GPUs move is for device_test.py."""

import contextlib
import os
import pathlib
import signal
import unittest

from dashboard_panels import DEVICE_ROW, filled_in
from observed_group import CLIENTS_A_RANK, HOST, Load, Prometheus, rule_selectors, start_group, wait_for
from group import descendants  # observed_group knows where it lies


class RealPrometheus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.group = start_group()
        cls.addClassCleanup(cls.group.close)
        cls.prometheus = Prometheus(cls.group.ports)
        cls.addClassCleanup(cls.prometheus.close)
        cls.load = Load(cls.group.ports)
        cls.addClassCleanup(cls.load.stop)

    def test_1_every_query_of_the_dashboard_returns_data(self):
        wanted = filled_in(lambda row: row != DEVICE_ROW)
        self.assertGreater(len(wanted), 50)
        self.prometheus.wait_for_each(wanted)

    def test_2_every_selector_of_the_rules_returns_data(self):
        selectors = rule_selectors()
        self.assertIn('lockstep_up_state{state="ready"}', selectors)
        self.assertIn("up", selectors)
        self.prometheus.wait_for_each(selectors)

    def test_3_no_alert_fires_under_load(self):
        self.assertEqual(self.prometheus.firing(), [])

    def test_4_counters_summed_over_ranks_are_what_clients_saw(self):
        self.load.stop()
        self.assertEqual(self.load.problems, [])
        self.assertGreater(self.load.answers, 2 * CLIENTS_A_RANK)
        expected = {
            "lockstep_generated_tokens_total": self.load.tokens,
            "lockstep_requests_finished_total": self.load.answers,
            'lockstep_http_requests_total{route="/v1/completions",code="200"}': self.load.answers,
            "lockstep_request_duration_seconds_count": self.load.answers,
        }
        for expression, value in expected.items():
            wait_for(lambda expression=expression, value=value: self.prometheus.total(expression) == value, f"{expression} to be {value}, is {self.prometheus.total(expression)}")

    def test_5_a_stopped_rank_is_named_by_the_right_alerts(self):
        victim = self.rank_process(1)
        os.kill(victim, signal.SIGSTOP)
        self.addCleanup(os.kill, victim, signal.SIGKILL)
        for alert, labels in (("LockstepPeerSilent", {"peer": "1", "rank": "0"}), ("LockstepRankMissing", {"instance": f"{HOST}:{self.group.port + 1}"}),
                              ("LockstepStepStalled", {"rank": "0"})):  # fmt: skip
            wait_for(lambda alert=alert, labels=labels: self.fires(alert, labels), f"{alert} with {labels}")
        self.assertFalse(self.fires("LockstepRankMissing", {"instance": f"{HOST}:{self.group.port}"}))

    def fires(self, alert, labels):
        return any(found["alertname"] == alert and labels.items() <= found.items() for found in self.prometheus.firing())

    def rank_process(self, rank):
        for process in descendants(self.group.process.pid):
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{process}/comm").read_text().strip() == "lockstepd":
                    environment = pathlib.Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                    if f"OMPI_COMM_WORLD_RANK={rank}".encode() in environment:
                        return process
        raise AssertionError(f"no process of rank {rank}")


if __name__ == "__main__":
    unittest.main()
