#!/usr/bin/env python3
"""How much of the expert exchange micro-batches hide, between two hosts of one core each; prints JSON. Started by sections.py; see tests/hosts/network.py.

Steps of several prompts each, so that every step computes the same number of rows on both hosts, and the parts of a step take about as long. Per step, as the
traces of both ranks show it:
compute    the step in micro-batches on links without a limit
exchange   what the link sent in a limited step, by its own counter, over its rate; each round sets the rate to make it equal to four micro-batches' `compute`
overlapped, serial    the step in micro-batches, and whole, on limited links
exposed    time in exchanges while nothing was computed

A group for each number of micro-batches is up all the time, and what is compared is measured within seconds of each other, again and again: a machine's speed
changes from minute to minute. Free links are measured before and after limited ones. A ratio is the median over the rounds of the round's own ratio.
"""

import contextlib
import json
import os
import pathlib
import statistics
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/hosts"))
import hosts_group  # noqa: E402
import network  # noqa: E402

MODEL = ROOT / "bench/models/wide"
PROMPT_ROWS = 256
PROMPTS_OF_A_STEP = 4
ROWS = PROMPT_ROWS * PROMPTS_OF_A_STEP
MICRO_BATCHES = (4, 1, 2)  # the first sets a round's rate
ROUNDS = 6
STEPS = 4  # of each host and measurement; the first and the last may be smaller, or find one host ahead
WARM_UP_STEPS = 3
TRACED_STEPS = 8 * STEPS  # with those that only agree on having nothing to do
BITS = 8
COUNTED = slice(1, -1)
STAGES = ("embed", "attention", "dense", "experts", "weigh", "head")


def prompt(rank, number):
    """Token ids as text: a dummy model has no tokenizer."""
    return " ".join(str((number * 7919 + position * 104729 + rank * 31) % 4000 + 3) for position in range(PROMPT_ROWS))


def ask_all(group, steps):
    """Every host gets prompts of so many steps at once; all answers."""
    answers = {}

    def ask(rank, number):
        status, answer = group.complete(rank, prompt=prompt(rank, number), max_tokens=1, ignore_eos=True, logprobs=1)
        answers[rank, number] = answer["choices"][0]["logprobs"]["token_logprobs"] if status == 200 else answer
        if status != 200:
            raise RuntimeError(f"rank {rank}: {status} {answer}")

    threads = [threading.Thread(target=ask, args=(rank, number)) for rank in range(len(group.addresses)) for number in range(steps * PROMPTS_OF_A_STEP)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[key] for key in sorted(answers)]


def united(intervals):
    """Sorted, without overlaps."""
    result = []
    for begin, end in sorted(intervals):
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((begin, end))
    return result


def exposed_us(exchanges, stages):
    return sum(end - begin - sum(max(0, min(end, stage_end) - max(begin, stage_begin)) for stage_begin, stage_end in stages) for begin, end in exchanges)


def last_steps(group):
    """(milliseconds, of them exposed, of them in stages) of each rank's last STEPS steps with prompts."""
    status, trace = hosts_group.call(group.addresses[0], "GET", f"/debug/trace?steps={TRACED_STEPS}", port=group.port)
    if status != 200:
        raise RuntimeError(f"{status} {trace}")
    steps = [{} for _ in group.addresses]
    for span in (json.loads(trace) if isinstance(trace, str) else trace)["traceEvents"]:
        if span["ph"] == "X":
            steps[span["pid"]].setdefault(span["args"]["step"], []).append((span["name"], span["ts"], span["ts"] + span["dur"]))
    measured = []
    for of_rank in steps:
        of_rank = [measure_step(spans) for _, spans in sorted(of_rank.items()) if any(name == "dispatch" for name, _, _ in spans)]
        measured += of_rank[-STEPS:][COUNTED]
    return measured


def measure_step(spans):
    exchanges = united((begin, end) for name, begin, end in spans if name in ("dispatch", "combine"))
    stages = united((begin, end) for name, begin, end in spans if name in STAGES)
    length = max(exchanges[-1][1], stages[-1][1]) - min(exchanges[0][0], stages[0][0])
    return (length / 1000, exposed_us(exchanges, stages) / 1000, sum(end - begin for begin, end in stages) / 1000)


def keep_priority(processes):
    """Linux shares cores among sessions first, and the launcher begins new ones: without this `nice` is lost on the way to the ranks."""
    for process in processes:
        with contextlib.suppress(OSError):  # a kernel without such groups, or a container that may not
            pathlib.Path(f"/proc/{process}/autogroup").write_text(str(os.nice(0)))


def measure(group, hosts, bits_per_s=None):
    """Medians over steps and ranks; what each step made the busier link send. Without a rate: on links without a limit."""
    for name in hosts.hosts:
        if bits_per_s:
            hosts.limit(name, f"{bits_per_s}bit")
        else:
            hosts.unlimit(name)
    sent = [hosts.bytes_sent(name) for name in hosts.hosts]
    answers = ask_all(group, STEPS)
    sent = [hosts.bytes_sent(name) - before for name, before in zip(hosts.hosts, sent)]
    step_ms, exposed_ms, stages_ms = (statistics.median(column) for column in zip(*last_steps(group)))
    return {"step_ms": step_ms, "exposed_ms": exposed_ms, "stages_ms": stages_ms, "sent_bytes": max(sent) / STEPS, "answers": answers}


def start(hosts, micro_batches):
    group = hosts_group.HostsGroup(hosts, "--model", str(MODEL), "--load-format", "dummy", "--micro-batches", str(micro_batches), "--max-num-batched-tokens", str(ROWS),
                                   "--stall-timeout", "20s", status_dir=f"/tmp/status{micro_batches}", port=hosts_group.PORT + 10 * micro_batches)  # fmt: skip
    keep_priority(group.pid(rank) for rank in range(len(group.addresses)))
    ask_all(group, WARM_UP_STEPS)
    return group


def measure_round(groups, hosts):
    """{micro-batches: (on links without a limit, on limited ones)}"""
    bits_per_s = None
    measured = {}
    for count, group in groups.items():
        before = measure(group, hosts)
        bits_per_s = bits_per_s or int(BITS * before["sent_bytes"] / (before["step_ms"] / 1000))
        limited = measure(group, hosts, bits_per_s)
        after = measure(group, hosts)
        if before["answers"] != after["answers"]:
            raise RuntimeError(f"the answers with {count} micro-batches differ between two times")
        # A machine that becomes slower or faster meanwhile does so to both.
        free = {name: before[name] if name == "answers" else (before[name] + after[name]) / 2 for name in before}
        measured[count] = (free, {**limited, "exchange_ms": 1000 * BITS * limited["sent_bytes"] / bits_per_s, "bits_per_s": bits_per_s})
    return measured


def figures_of(rounds):
    """What `rounds` show, of four micro-batches and, the same names with `_2`, of two."""

    def median(value):
        return statistics.median(value(measured) for measured in rounds)

    figures = {}
    for count, suffix in ((4, ""), (2, "_2")):
        def ratio(measured, count=count):
            return measured[count][1]["step_ms"] / max(measured[count][0]["step_ms"], measured[count][1]["exchange_ms"])

        def exposed_minus_difference(measured, count=count):
            free, limited = measured[count]
            return (limited["exposed_ms"] - free["exposed_ms"] - (limited["step_ms"] - free["step_ms"])) / limited["step_ms"]

        figures |= {f"{name}{suffix}": value for name, value in {
            "ratio_vs_ideal": median(ratio),
            "ratio_vs_ideal_min": min(map(ratio, rounds)),
            "ratio_vs_ideal_max": max(map(ratio, rounds)),
            "speedup_vs_serial": median(lambda measured: measured[1][1]["step_ms"] / measured[count][1]["step_ms"]),
            "exposed_share": median(lambda measured: measured[count][1]["exposed_ms"] / measured[count][1]["step_ms"]),
            "exposed_minus_difference_share": median(exposed_minus_difference),
            "cost_of_smaller_batches": median(lambda measured: measured[count][0]["step_ms"] / measured[1][0]["step_ms"]),
            "compute_ms": median(lambda measured: measured[count][0]["step_ms"]),
            "exchange_ms": median(lambda measured: measured[count][1]["exchange_ms"]),
            "overlapped_ms": median(lambda measured: measured[count][1]["step_ms"]),
            "exposed_ms": median(lambda measured: measured[count][1]["exposed_ms"]),
            "exposed_on_free_links_ms": median(lambda measured: measured[count][0]["exposed_ms"]),
            "stages_ms": median(lambda measured: measured[count][1]["stages_ms"]),
            "stages_on_free_links_ms": median(lambda measured: measured[count][0]["stages_ms"]),
        }.items()}  # fmt: skip
    return figures | {
        "serial_ms": median(lambda measured: measured[1][1]["step_ms"]),
        "whole_on_free_links_ms": median(lambda measured: measured[1][0]["step_ms"]),
        "link_megabits_per_s": median(lambda measured: measured[1][1]["bits_per_s"]) / 1e6,
    }


def main():
    network.enter_cluster()
    keep_priority(["self"])
    hosts_group.BINARY = sys.argv[1]
    hosts = network.Network(("a", "b"))
    groups = {}
    try:
        for count in MICRO_BATCHES:
            groups[count] = start(hosts, count)
        answers = measure(groups[1], hosts)["answers"]
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(measure_round(groups, hosts))
            print("ms on free and limited links:", *(f"{count}: {free['step_ms']:.0f} {limited['step_ms']:.0f} " for count, (free, limited) in rounds[-1].items()), file=sys.stderr)
        if any(step["answers"] != answers for measured in rounds for steps in measured.values() for step in steps):
            raise RuntimeError("the answers differ between whole and split steps")
        print(json.dumps(figures_of(rounds)))
    finally:
        for group in groups.values():
            group.close()
        hosts.close()


if __name__ == "__main__":
    main()
