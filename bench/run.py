#!/usr/bin/env python3
"""Benchmarks of lockstep: `./dev bench [section ...] [--json FILE]`.

Every figure that is a claim is a ratio against a baseline of the same run, or the median of several runs. Standard library only.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import exchange.sections
import hosts.sections
import library.sections
import overlap.sections
import pipelined.sections
import scale.sections
import timeline.sections
from group import Group, cpu_seconds
from serving import section_serving

ROOT = pathlib.Path(__file__).resolve().parent.parent


def section_agreement(build_dir):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    bind = ["--bind-to", "core"] if (os.cpu_count() or 1) >= 2 else ["--oversubscribe", "--bind-to", "none"]
    command = ["mpirun", "-n", "2", *bind, str(build_dir / "bench" / "bench_agreement")]
    runs = [json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300).stdout) for _ in range(3)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def section_idle(build_dir):
    seconds = 10.0
    with Group(build_dir, 2) as group:
        group.wait_ready()
        group.complete(0, 8)
        pids = group.rank_pids()
        before = [cpu_seconds(pid) for pid in pids]
        time.sleep(seconds)  # the measured interval, not a wait for a condition
        after = [cpu_seconds(pid) for pid in pids]
    return {"cpu_share_of_one_core": max((b - a) / seconds for a, b in zip(before, after)), "ranks": len(pids)}


SECTIONS = {"agreement": section_agreement, "idle": section_idle, "serving": section_serving, **exchange.sections.SECTIONS, **hosts.sections.SECTIONS, **library.sections.SECTIONS, **overlap.sections.SECTIONS, **pipelined.sections.SECTIONS, **scale.sections.SECTIONS, **timeline.sections.SECTIONS}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"some of: {', '.join(SECTIONS)}; all when none is named")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--build-dir", default=str(ROOT / "build" / "release"))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    results = {}
    for name in arguments.sections or SECTIONS:
        results[name] = {figure: round(value, 4) for figure, value in SECTIONS[name](pathlib.Path(arguments.build_dir)).items()}
        print(name)
        for figure, value in results[name].items():
            print(f"  {figure:<36} {value}")
        sys.stdout.flush()
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
