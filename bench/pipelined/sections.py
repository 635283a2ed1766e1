"""Section pipelined: what a step's agreement costs the step thread, and a whole decode step, with --agreement sync and pipelined in turn.

On one host (two ranks of a core each) and between two hosts. `exposed_us` and `step_us` are pipelined, `sync_…` what they are compared with.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "model" / "embedded"
LIMIT_S = 600
SKIPPED = 77
RUNS = 3


def medians(command, environment=None):
    """Of RUNS runs; empty where the program says that it cannot run here."""
    runs = []
    for _ in range(RUNS):
        done = subprocess.run([str(word) for word in command], env=environment, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
        if done.returncode == SKIPPED:
            print(f"  {done.stdout.strip()}")
            return {}
        done.check_returncode()
        runs.append(json.loads(done.stdout))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def section_pipelined(build_dir):
    program = [build_dir / "bench" / "bench_pipelined", MODEL]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    bind = ["--bind-to", "core"] if (os.cpu_count() or 1) >= 2 else ["--oversubscribe", "--bind-to", "none"]
    one_host = medians(["mpirun", "-n", "2", *bind, *program], environment)
    two_hosts = medians([sys.executable, "-B", ROOT / "bench/hosts/between_hosts.py", *program])
    rows = [("one host", one_host), ("two hosts", two_hosts)]
    print(f"  {'':<10} {'agreement us, sync':>20} {'pipelined':>10} {'step us, sync':>14} {'pipelined':>10}")
    for name, row in rows:
        if row:
            print(f"  {name:<10} {row['sync_exposed_us']:>20.2f} {row['exposed_us']:>10.2f} {row['sync_step_us']:>14.1f} {row['step_us']:>10.1f}")
    return {**one_host, **{f"hosts_{name}": value for name, value in two_hosts.items()}}


SECTIONS = {"pipelined": section_pipelined}
