"""Sections agreement_hosts: the step agreement between two hosts against a plain MPI_Allreduce of the same matrix, in the same run; interrupts: what a link's packets take
from a thread that computes on a host's only core, of the time that its own clock counts as its own.
"""

import pathlib
import sys

from runs import medians

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_S = 300
MEGABITS_PER_S = 375


def section_agreement_hosts(build_dir):
    """Empty where no namespaces can be made: the program says why."""
    return medians([sys.executable, "-B", HERE / "between_hosts.py", build_dir / "bench" / "bench_agreement"], LIMIT_S)


def section_interrupts(build_dir):
    """At about the rate that section overlap sets. Empty where no namespaces can be made: the program says why."""
    return medians([sys.executable, "-B", HERE / "interrupts.py", build_dir / "bench" / "bench_interrupts", MEGABITS_PER_S], LIMIT_S)


SECTIONS = {"agreement_hosts": section_agreement_hosts, "interrupts": section_interrupts}
