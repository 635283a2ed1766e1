"""Section exchange: a dispatch and its combine with few rows, gathered against routed, on two and four ranks of one host and on two hosts: --gather-rows' default.

Where there are fewer cores than ranks these take turns: the ratio then tells what each way costs the cores, and not what waiting costs.
"""

import os
import pathlib
import sys

from runs import medians

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_S = 300
RANKS = (2, 4)
SHAPES = {"": ("1024", "2", "8"), "top8_": ("2048", "8", "64")}  # hidden size, experts of a row, experts
ROWS = [2**power for power in range(7)]


def section_exchange(build_dir):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    figures = {}
    print(f"  gathered / routed, rows of all ranks: {'':<4}" + "".join(f"{rows:>7}" for rows in ROWS))
    for ranks in RANKS:
        bind = ["--bind-to", "core"] if (os.cpu_count() or 1) >= ranks else ["--oversubscribe", "--bind-to", "none"]
        for shape, arguments in SHAPES.items():
            program = [build_dir / "bench" / "bench_exchange", *arguments]
            places = {"": ["mpirun", "-n", ranks, *bind, *program]}
            if ranks == 2:
                places["hosts_"] = [sys.executable, "-B", ROOT / "bench/hosts/between_hosts.py", *program]
            for place, command in places.items():
                row = medians(command, LIMIT_S, environment if not place else None)
                if row:
                    where = f"{ranks} {'hosts' if place else 'ranks'}"
                    print(f"  {where:<10} {' '.join(arguments):<30}" + "".join(f"{row[f'ratio_{rows}']:>7.2f}" for rows in ROWS))
                group = "" if ranks == RANKS[0] else f"ranks{ranks}_"
                figures |= {f"{group}{place}{shape}{name}": value for name, value in row.items()}
    return figures


SECTIONS = {"exchange": section_exchange}
