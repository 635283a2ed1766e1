#!/usr/bin/env python3
"""Goal    What the conformance suite asks of a communicator holds between hosts too, where messages travel in pieces.
Method  The suite's program on two hosts, two ranks each, so that every rank has a peer beside it and others beyond the network."""

import os
import subprocess
import unittest

import network
from hosts_group import REPOSITORY, HostsTest, launch

PROGRAM = os.environ.get("LOCKSTEP_HOSTS_CONFORMANCE", str(REPOSITORY / "build/release/tests/conformance_comm"))
LIMIT_S = 120
FAILURES = ("SilentSender", "TooLong", "FarTooLong", "Different")  # a failed operation breaks the communicator: a job for each


class Conformance(HostsTest):
    def run_suite(self, test_filter):
        # A rank that failed an operation leaves without MPI_Finalize, which mpirun would take for a crash.
        process = launch(self.network, PROGRAM, "--gtest_brief=1", f"--gtest_filter={test_filter}", slots=2, environment={"OMPI_MCA_orte_allowed_exit_without_sync": "1"},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
        try:
            text = process.communicate(timeout=LIMIT_S)[0]
        finally:
            process.kill()
        self.assertEqual(process.returncode, 0, text)
        self.assertNotIn(" 0 tests from", text)  # a filter that has lost its tests must not pass

    def test_operations_give_their_results(self):
        self.run_suite("-*CommFailure*")

    def test_failures_end_in_an_error(self):
        for failure in FAILURES:
            with self.subTest(failure):
                self.run_suite(f"*CommFailure.{failure}*")


if __name__ == "__main__":
    network.enter_cluster()
    unittest.main()
