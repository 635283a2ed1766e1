#!/usr/bin/env python3
"""Goal    The end-to-end and fault tests of the CPU's daemons pass with `--device cuda`: the same files, the same assertions.
Method  run.py OPTIONS FILE [NAME ...] runs a test file of tests/e2e or tests/fault on the simulated runtime, all of it but what excluded.py names, or only what the names
        match, with communicator, graphs, micro-batches and ranks of the options. Each of its daemons is told by its environment, so that what a test itself asks for
        on a command line wins. A name that matches nothing, or an exclusion of a test that is not there, is an error."""

import argparse
import fnmatch
import os
import pathlib
import sys
import unittest

from excluded import EXCLUDED

TESTS = pathlib.Path(__file__).resolve().parents[2]
# Simulated devices are slow, on a busy machine more so: neither a drain nor a wait may end for that.
LIMIT_SECONDS = 300


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--communicator", default="nccl", choices=("nccl", "mpi"))
    parser.add_argument("--graphs", default="full", choices=("none", "piecewise", "full"))
    parser.add_argument("--micro-batches", default="1")
    parser.add_argument("--schedule", default="random", choices=("early", "late", "random"))
    parser.add_argument("--seed", default="1")
    parser.add_argument("file", help="below tests/")
    parser.add_argument("names", nargs="*", help="Class.test; * stands for anything")
    return parser.parse_args()


def set_environment(chosen):
    """What tests/e2e/group.py reads when it is imported."""
    daemon = {
        "LD_LIBRARY_PATH": os.environ["LOCKSTEP_SIM_FOLDER"],
        "LOCKSTEP_DEVICE": "cuda",
        "LOCKSTEP_COMMUNICATOR": chosen.communicator if chosen.ranks > 1 else "auto",
        "LOCKSTEP_CUDA_GRAPHS": chosen.graphs,
        "LOCKSTEP_MICRO_BATCHES": chosen.micro_batches,
        "LOCKSTEP_BATCH_INVARIANT": "true",  # as the CPU always is
        "LOCKSTEP_STALL_TIMEOUT": f"{LIMIT_SECONDS}s",
        "LOCKSTEP_DRAIN_TIMEOUT": f"{LIMIT_SECONDS}s",
        "LOCKSTEP_SIM_DEVICES": "8",
        "LOCKSTEP_SIM_SCHEDULE": chosen.schedule,
        "LOCKSTEP_SIM_SEED": chosen.seed,
    }
    os.environ["LOCKSTEP_TEST_DAEMON"] = " ".join(f"{name}={value}" for name, value in daemon.items())
    os.environ["LOCKSTEP_TEST_RANKS"] = str(chosen.ranks)
    os.environ["LOCKSTEP_TEST_LIMIT_SECONDS"] = str(LIMIT_SECONDS)


def each_test(suite):
    for entry in suite:
        if isinstance(entry, unittest.TestSuite):
            yield from each_test(entry)
        else:
            yield entry


def name_of(test):
    return f"{type(test).__name__}.{test._testMethodName}"


def reasons_of(file, ranks, found):
    """Which tests are left out and why, by name."""
    reasons = {}
    for excluded in EXCLUDED:
        if excluded.file != file:
            continue
        matching = fnmatch.filter(found, excluded.name)
        if not matching:
            raise SystemExit(f"excluded.py: {file} has no test {excluded.name}")
        if excluded.ranks is None or ranks in excluded.ranks:
            reasons.update(dict.fromkeys(matching, excluded.reason))
    return reasons


def main():
    chosen = arguments()
    set_environment(chosen)
    path = TESTS / chosen.file
    sys.path.insert(0, str(path.parent))
    tests = {name_of(test): test for test in each_test(unittest.defaultTestLoader.loadTestsFromName(path.stem))}
    reasons = reasons_of(chosen.file, chosen.ranks, tests)
    for pattern in chosen.names:
        if not fnmatch.filter(tests, pattern):
            raise SystemExit(f"{chosen.file} has no test {pattern}")
    kept = [name for name in tests if name not in reasons and (not chosen.names or any(fnmatch.fnmatch(name, pattern) for pattern in chosen.names))]
    for name, reason in reasons.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if not kept:
        raise SystemExit(f"{chosen.file}: no test is left")
    # Suites keep tests of one class together, for what the class sets up.
    result = unittest.TextTestRunner(verbosity=2, failfast=False).run(unittest.TestSuite(tests[name] for name in kept))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
