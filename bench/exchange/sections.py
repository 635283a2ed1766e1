"""Section exchange: a dispatch and its combine with few rows, gathered against routed, two ranks of a core each on one host and on two: --gather-rows' default."""

import os
import pathlib
import sys

from runs import medians

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_S = 300
SHAPES = {"": ("1024", "2", "8"), "top8_": ("2048", "8", "64")}  # hidden size, experts of a row, experts
ROWS = [2**power for power in range(7)]


def section_exchange(build_dir):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    bind = ["--bind-to", "core"] if (os.cpu_count() or 1) >= 2 else ["--oversubscribe", "--bind-to", "none"]
    figures = {}
    print(f"  gathered / routed, rows of both ranks: {'':<3}" + "".join(f"{rows:>7}" for rows in ROWS))
    for shape, arguments in SHAPES.items():
        program = [build_dir / "bench" / "bench_exchange", *arguments]
        places = {"": ["mpirun", "-n", "2", *bind, *program], "hosts_": [sys.executable, "-B", ROOT / "bench/hosts/between_hosts.py", *program]}
        for place, command in places.items():
            row = medians(command, LIMIT_S, environment if not place else None)
            if row:
                print(f"  {'two hosts' if place else 'one host':<10} {' '.join(arguments):<30}" + "".join(f"{row[f'ratio_{rows}']:>7.2f}" for rows in ROWS))
            figures |= {f"{place}{shape}{name}": value for name, value in row.items()}
    return figures


SECTIONS = {"exchange": section_exchange}
