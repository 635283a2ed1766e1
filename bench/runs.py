"""Several runs of one program of the bench, which prints its figures as JSON: what the sections for one and two hosts share."""

import json
import statistics
import subprocess

SKIPPED = 77
RUNS = 3


def medians(command, limit_s, environment=None):
    """Of RUNS runs; empty where the program says that it cannot run here."""
    runs = []
    for _ in range(RUNS):
        done = subprocess.run([str(word) for word in command], env=environment, stdout=subprocess.PIPE, text=True, timeout=limit_s, check=False)
        if done.returncode == SKIPPED:
            print(f"  {done.stdout.strip()}")
            return {}
        done.check_returncode()
        runs.append(json.loads(done.stdout))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
