#!/usr/bin/env python3
"""Goal    What panels and alerts ask for, a group on GPUs gives too, and the panels of devices show more than zeros.
Method  As prometheus_test.py, but the two ranks run `--device cuda` on the simulated runtime. Every query of the dashboard is asked, so that a panel that comes
        to its row of devices is held to this without a word here."""

import os
import unittest

from dashboard_panels import DEVICE_ROW, filled_in
from observed_group import Load, Prometheus, rule_selectors, start_group

RANKS = 2
SIMULATED = {
    "LD_LIBRARY_PATH": os.environ["LOCKSTEP_SIM_FOLDER"],
    "LOCKSTEP_SIM_SCHEDULE": "late",  # so that the host has something to wait for
    "LOCKSTEP_SIM_DEVICES": str(RANKS),
    "LOCKSTEP_SIM_MACHINE": f"monitored-{os.getpid()}",  # whose devices no other test has claimed
}


def moves(result):
    return any(value > 0 for _, value in result)


class Devices(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.group = start_group("--device", "cuda", ranks=RANKS, micro_batches=1, variables=SIMULATED)  # split steps are launched without graphs
        cls.addClassCleanup(cls.group.close)
        cls.prometheus = Prometheus(cls.group.ports)
        cls.addClassCleanup(cls.prometheus.close)
        cls.load = Load(cls.group.ports)
        cls.addClassCleanup(cls.load.stop)

    def test_1_every_query_of_the_dashboard_returns_data(self):
        self.prometheus.wait_for_each(filled_in())

    def test_2_every_selector_of_the_rules_returns_data(self):
        self.prometheus.wait_for_each(rule_selectors())

    def test_3_every_query_about_devices_shows_more_than_zeros(self):
        about_devices = filled_in(lambda row: row == DEVICE_ROW)
        self.assertGreaterEqual(len(about_devices), 3)
        self.prometheus.wait_for_each(about_devices, "value above 0", moves)

    def test_4_clients_were_answered(self):
        self.load.stop()
        self.assertEqual(self.load.problems, [])
        self.assertGreater(self.load.answers, 0)


if __name__ == "__main__":
    unittest.main()
