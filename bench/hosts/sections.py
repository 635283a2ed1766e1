"""Section agreement_hosts: the step agreement between two hosts against a plain MPI_Allreduce of the same matrix, in the same run."""

import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_S = 300
SKIPPED = 77
RUNS = 3


def section_agreement_hosts(build_dir):
    """Empty where no namespaces can be made: the program says why."""
    runs = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-B", HERE / "between_hosts.py", build_dir / "bench" / "bench_agreement"], stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
        if done.returncode == SKIPPED:
            print(f"  {done.stdout.strip()}")
            return {}
        done.check_returncode()
        runs.append(json.loads(done.stdout))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


SECTIONS = {"agreement_hosts": section_agreement_hosts}
