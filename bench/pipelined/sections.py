"""Section pipelined: what a step's agreement costs the step thread, and a whole decode step, with --agreement sync and pipelined in turn.

On one host (two ranks of a core each) and between two hosts. `exposed_us` and `step_us` are pipelined, `sync_…` what they are compared with.
"""

import os
import pathlib
import sys

from runs import medians

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "model" / "embedded"
LIMIT_S = 600


def section_pipelined(build_dir):
    program = [build_dir / "bench" / "bench_pipelined", MODEL]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    bind = ["--bind-to", "core"] if (os.cpu_count() or 1) >= 2 else ["--oversubscribe", "--bind-to", "none"]
    one_host = medians(["mpirun", "-n", "2", *bind, *program], LIMIT_S, environment)
    two_hosts = medians([sys.executable, "-B", ROOT / "bench/hosts/between_hosts.py", *program], LIMIT_S)
    rows = [("one host", one_host), ("two hosts", two_hosts)]
    print(f"  {'':<10} {'agreement us, sync':>20} {'pipelined':>10} {'step us, sync':>14} {'pipelined':>10}")
    for name, row in rows:
        if row:
            print(f"  {name:<10} {row['sync_exposed_us']:>20.2f} {row['exposed_us']:>10.2f} {row['sync_step_us']:>14.1f} {row['step_us']:>10.1f}")
    return {**one_host, **{f"hosts_{name}": value for name, value in two_hosts.items()}}


SECTIONS = {"pipelined": section_pipelined}
