#!/usr/bin/env python3
"""Goal    However a test of this folder ends, nothing of its hosts is left: no process, and with them no namespace, interface or mount.
Method  A second copy of this program makes hosts with a group on them and is killed; its processes are looked for from outside."""

import os
import pathlib
import signal
import subprocess
import sys
import unittest

import network
from hosts_group import launch, wait_for
from group import descendants  # after hosts_group, which knows where it lies

HOLD = "--hold"


def hold():
    hosts = network.Network(("a", "b"))
    process = launch(hosts, "sh", "-c", 'echo "$OMPI_COMM_WORLD_RANK"; exec sleep infinity', stdout=subprocess.PIPE, text=True)
    ranks = sorted([process.stdout.readline(), process.stdout.readline()])
    print("held" if ranks == ["0\n", "1\n"] else ranks, flush=True)
    signal.pause()


def start_time(process):
    """Tells a process from a later one with its id; None when there is none."""
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Cleanup(unittest.TestCase):
    def test_leaves_nothing_when_it_is_killed(self):
        holder = subprocess.Popen([sys.executable, "-B", __file__, HOLD], stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.stdout.close)
        line = holder.stdout.readline()
        if line.startswith("skipped"):
            print(line, end="", flush=True)
            os._exit(network.SKIPPED)
        self.assertEqual(line, "held\n")
        processes = {process: start_time(process) for process in descendants(holder.pid)}
        self.assertGreater(len(processes), 8)  # two holders, lockstep-run, mpirun, its daemon over there, two ranks with their wrappers
        holder.kill()
        holder.wait()
        wait_for(lambda: all(start is None or start_time(process) != start for process, start in processes.items()), "all processes to be gone")


if __name__ == "__main__":
    if HOLD in sys.argv:
        network.enter_cluster()
        hold()
    unittest.main()
