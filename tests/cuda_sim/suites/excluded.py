"""Tests of tests/e2e and tests/fault that are not run on the simulated runtime, each with the reason. run.py reads it, and refuses what names no test."""

import typing


class Excluded(typing.NamedTuple):
    file: str
    name: str  # Class.test; * stands for anything
    reason: str
    ranks: tuple[int, ...] | None = None  # only with so many ranks; None: always


EXCLUDED = [
    Excluded("e2e/refusal_test.py", "Refusal.test_of_a_model_beyond_the_memory_says_so_and_is_the_machines_fault", "is about the host's memory; a device's is compared before anything is loaded"),
    Excluded("e2e/preflight_test.py", "Preflight.test_check_names_memory_that_is_not_there", "is about the host's memory"),
    Excluded("e2e/preflight_test.py", "Preflight.test_dry_run_shows_which_rank_holds_what", "expects the CPU's instruction set in the plan"),
    Excluded("e2e/preflight_test.py", "Preflight.test_planned_weights_are_those_that_are_loaded", "weighs the process, which the weights are not in"),
    Excluded("e2e/trace/trace_test.py", "WholeSteps.test_ranks_of_one_host_share_a_clock", "compares two ranks", ranks=(1,)),
    Excluded("e2e/trace/trace_test.py", "WholeSteps.test_any_rank_gives_the_spans_of_all_on_its_own_clock", "compares two ranks", ranks=(1,)),
    Excluded("fault/daemon/refusal_test.py", "Refusal.test_another_secret_is_refused", "needs a start timeout of less than 5 s, which simulated devices need more than: then the other rank gives up first"),
]
