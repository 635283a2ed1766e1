#!/usr/bin/env python3
"""How much of the expert exchange micro-batches hide, between two hosts of one core each; prints JSON. Started by sections.py; see tests/hosts/network.py.

Steps of several prompts each, so that every step computes the same number of rows on both hosts, and the parts of a step take about as long. Per step, as the
traces of both ranks show it:
compute    the step in micro-batches on links without a limit
exchange   what the link sent in a limited step, by its own counter, over its rate; each round sets the rate to make it equal to four micro-batches' `compute`
overlapped, serial    the step in micro-batches, and whole, on limited links
exposed    time in exchanges while nothing was computed: outside of stages, or in one whose thread had no core (`core_lost`), as the daemon counts it
kernel     of the stages' thread, by the kernel's ticks: a stage asks it for nothing, so this is what interrupts, the network's among them, took while it had its core
auto       a group with --micro-batches auto on limited links, after as many steps as it tries in

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
AUTO = "auto"
TRIAL_STEPS = 20  # more than auto tries a shape for: 4 of each number, on all hosts at once
TRACED_STEPS = 8 * STEPS  # with those that only agree on having nothing to do
BITS = 8
COUNTED = slice(1, -1)
COMPUTE_THREAD = "compute-0"
SPLIT_PARTS = ("core_lost", "user", "kernel")  # of the stages' own thread
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
    """What measure_step says of each rank's last STEPS steps with prompts."""
    status, trace = hosts_group.call(group.addresses[0], "GET", f"/debug/trace?steps={TRACED_STEPS}", port=group.port)
    if status != 200:
        raise RuntimeError(f"{status} {trace}")
    steps = [{} for _ in group.addresses]
    for span in (json.loads(trace) if isinstance(trace, str) else trace)["traceEvents"]:
        if span["ph"] == "X":
            steps[span["pid"]].setdefault(span["args"]["step"], []).append(span)
    measured = []
    for of_rank in steps:
        of_rank = [measure_step(spans) for _, spans in sorted(of_rank.items()) if any(span["name"] == "dispatch" for span in spans)]
        measured += of_rank[-STEPS:][COUNTED]
    return measured


def measure_step(spans):
    """Milliseconds but for the last."""
    exchanges = united((span["ts"], span["ts"] + span["dur"]) for span in spans if span["name"] in ("dispatch", "combine"))
    computing = [span for span in spans if span["name"] in STAGES]
    stages = united((span["ts"], span["ts"] + span["dur"]) for span in computing)
    off_core = [(span["args"]["off_core_us"], span) for span in computing if "off_core_us" in span["args"]]
    core_lost = sum(min(lost, span["dur"] - exposed_us([(span["ts"], span["ts"] + span["dur"])], exchanges)) for lost, span in off_core)
    return {
        "step_ms": (max(exchanges[-1][1], stages[-1][1]) - min(exchanges[0][0], stages[0][0])) / 1000,
        "exposed_ms": (exposed_us(exchanges, stages) + core_lost) / 1000,
        "core_lost_ms": core_lost / 1000,
        "stages_ms": sum(end - begin for begin, end in stages) / 1000,
        "micro_batches": 1 + max(span["args"]["micro_batch"] for span in computing),
    }


def stages_ticks(group):
    """(user, kernel) ticks of all ranks' compute threads so far; none with whole steps, which the step thread computes."""
    ticks = [0, 0]
    for rank in range(len(group.addresses)):
        for thread in pathlib.Path(f"/proc/{group.pid(rank)}/task").iterdir():
            with contextlib.suppress(OSError):
                name, fields = (thread / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
                if name == COMPUTE_THREAD:
                    ticks = [before + int(of_thread) for before, of_thread in zip(ticks, fields.split()[11:13])]
    return ticks


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
    ticks = stages_ticks(group)
    answers = ask_all(group, STEPS)
    sent = [hosts.bytes_sent(name) - before for name, before in zip(hosts.hosts, sent)]
    user_ms, kernel_ms = (1000 * (after - before) / os.sysconf("SC_CLK_TCK") / STEPS / len(group.addresses) for before, after in zip(ticks, stages_ticks(group)))
    steps = last_steps(group)
    return {**{name: statistics.median(step[name] for step in steps) for name in steps[0]}, "user_ms": user_ms, "kernel_ms": kernel_ms,
            "sent_bytes": max(sent) / STEPS, "answers": answers}  # fmt: skip


def start(hosts, micro_batches, number):
    group = hosts_group.HostsGroup(hosts, "--model", str(MODEL), "--load-format", "dummy", "--micro-batches", str(micro_batches), "--max-num-batched-tokens", str(ROWS),
                                   "--stall-timeout", "20s", status_dir=f"/tmp/status{micro_batches}", port=hosts_group.PORT + 10 * number)  # fmt: skip
    keep_priority(group.pid(rank) for rank in range(len(group.addresses)))
    ask_all(group, WARM_UP_STEPS)
    return group


def train(group, four, hosts):
    """Has `auto` try what it tries, on a link as a round would set it."""
    free = measure(four, hosts)
    for name in hosts.hosts:
        hosts.limit(name, f"{link_rate(free)}bit")
    ask_all(group, TRIAL_STEPS)


def link_rate(free):
    return int(BITS * free["sent_bytes"] / (free["step_ms"] / 1000))


def measure_round(groups, hosts):
    """{micro-batches: (on links without a limit, on limited ones)}; of `auto` on limited ones alone."""
    bits_per_s = None
    measured = {}
    for count in MICRO_BATCHES:
        group = groups[count]
        before = measure(group, hosts)
        bits_per_s = bits_per_s or link_rate(before)
        limited = measure(group, hosts, bits_per_s)
        after = measure(group, hosts)
        if before["answers"] != after["answers"]:
            raise RuntimeError(f"the answers with {count} micro-batches differ between two times")
        # A machine that becomes slower or faster meanwhile does so to both.
        free = {name: before[name] if name == "answers" else (before[name] + after[name]) / 2 for name in before}
        measured[count] = (free, {**limited, "exchange_ms": 1000 * BITS * limited["sent_bytes"] / bits_per_s, "bits_per_s": bits_per_s})
    measured[AUTO] = measure(groups[AUTO], hosts, bits_per_s)
    return measured


def figures_of(rounds):
    """What `rounds` show, of four micro-batches and, the same names with `_2` and `_1`, of two and of whole steps."""

    def median(value):
        return statistics.median(value(measured) for measured in rounds)

    figures = {}
    for count, suffix in ((4, ""), (2, "_2"), (1, "_1")):
        def ratio(measured, count=count):
            return measured[count][1]["step_ms"] / max(measured[count][0]["step_ms"], measured[count][1]["exchange_ms"])

        def minus_difference(measured, parts, count=count):
            free, limited = measured[count]
            longer = {name: limited[name] - free[name] for name in ("step_ms", *parts)}
            return (sum(longer[part] for part in parts) - longer["step_ms"]) / limited["step_ms"]

        figures |= {f"{name}{suffix}": value for name, value in {
            "ratio_vs_ideal": median(ratio),
            "ratio_vs_ideal_min": min(map(ratio, rounds)),
            "ratio_vs_ideal_max": max(map(ratio, rounds)),
            "speedup_vs_serial": median(lambda measured: measured[1][1]["step_ms"] / measured[count][1]["step_ms"]),
            "exposed_share": median(lambda measured: measured[count][1]["exposed_ms"] / measured[count][1]["step_ms"]),
            "exposed_minus_difference_share": median(lambda measured: minus_difference(measured, ("exposed_ms",))),
            **({} if count == 1 else {"exposed_and_kernel_minus_difference_share": median(lambda measured: minus_difference(measured, ("exposed_ms", "kernel_ms")))}),
            "cost_of_smaller_batches": median(lambda measured: measured[count][0]["step_ms"] / measured[1][0]["step_ms"]),
            "compute_ms": median(lambda measured: measured[count][0]["step_ms"]),
            "exchange_ms": median(lambda measured: measured[count][1]["exchange_ms"]),
            "overlapped_ms": median(lambda measured: measured[count][1]["step_ms"]),
            "exposed_ms": median(lambda measured: measured[count][1]["exposed_ms"]),
            "exposed_on_free_links_ms": median(lambda measured: measured[count][0]["exposed_ms"]),
            **{f"{part}{links}_ms": median(lambda measured: measured[count][limited][f"{part}_ms"])
               for part in ("stages", *(SPLIT_PARTS if count > 1 else ())) for limited, links in ((1, ""), (0, "_on_free_links"))},
        }.items()}  # fmt: skip
    return figures | {
        "auto_ms": median(lambda measured: measured[AUTO]["step_ms"]),
        "auto_vs_best": median(lambda measured: measured[AUTO]["step_ms"] / min(measured[count][1]["step_ms"] for count in MICRO_BATCHES)),
        "auto_micro_batches": median(lambda measured: measured[AUTO]["micro_batches"]),
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
        for number, count in enumerate((*MICRO_BATCHES, AUTO)):
            groups[count] = start(hosts, count, number)
        train(groups[AUTO], groups[4], hosts)
        answers = measure(groups[1], hosts)["answers"]
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(measure_round(groups, hosts))
            auto = rounds[-1][AUTO]
            print("ms on free and limited links:", *(f"{count}: {rounds[-1][count][0]['step_ms']:.0f} {rounds[-1][count][1]['step_ms']:.0f} " for count in MICRO_BATCHES),
                  f"auto: {auto['step_ms']:.0f}, in {auto['micro_batches']:.0f}", file=sys.stderr)  # fmt: skip
        if any(step["answers"] != answers for measured in rounds for step in (measured[AUTO], *(step for count in MICRO_BATCHES for step in measured[count]))):
            raise RuntimeError("the answers differ between whole and split steps")
        print(json.dumps(figures_of(rounds)))
    finally:
        for group in groups.values():
            group.close()
        hosts.close()


if __name__ == "__main__":
    main()
