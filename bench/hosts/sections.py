"""Section agreement_hosts: the step agreement between two hosts against a plain MPI_Allreduce of the same matrix, in the same run."""

import pathlib
import sys

from runs import medians

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_S = 300


def section_agreement_hosts(build_dir):
    """Empty where no namespaces can be made: the program says why."""
    return medians([sys.executable, "-B", HERE / "between_hosts.py", build_dir / "bench" / "bench_agreement"], LIMIT_S)


SECTIONS = {"agreement_hosts": section_agreement_hosts}
