#!/usr/bin/env python3
"""How much of the expert exchange micro-batches hide, between two hosts of one core each; prints JSON. Started by sections.py; see tests/hosts/network.py.

Steps of several prompts each, so that every step computes the same number of rows on both hosts, and the halves of a step take about as long. Per step, as the
traces of both ranks show it:
compute    the step in micro-batches on links without a limit
exchange   what the link sent in a limited step, by its own counter, over its rate; the rate is set to make it equal to `compute`
overlapped, serial    the step in micro-batches, and whole, on limited links
exposed    time in exchanges while nothing was computed
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
STEPS = 8  # of each host and measurement; the first and the last may be smaller, or find one host ahead
WARM_UP_STEPS = 2
BITS = 8
COUNTED = slice(1, -1)


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


def steps_of(group, rank, count):
    """(milliseconds, of them exposed) of the rank's last `count` steps with prompts."""
    status, trace = hosts_group.call(group.addresses[rank], "GET", "/debug/trace?steps=1000")
    if status != 200:
        raise RuntimeError(f"rank {rank}: {status} {trace}")
    trace = json.loads(trace) if isinstance(trace, str) else trace
    steps = {}
    for span in trace["traceEvents"]:
        if span["ph"] == "X" and span["pid"] == rank:
            steps.setdefault(span["args"]["step"], []).append((span["name"], span["ts"], span["ts"] + span["dur"]))
    measured = []
    for _, spans in sorted(steps.items()):
        exchanges = united((begin, end) for name, begin, end in spans if name in ("dispatch", "combine"))
        stages = united((begin, end) for name, begin, end in spans if name in ("embed", "attention", "dense", "experts", "weigh", "head"))
        if exchanges:
            length = max(exchanges[-1][1], stages[-1][1]) - min(exchanges[0][0], stages[0][0])
            measured.append((length / 1000, exposed_us(exchanges, stages) / 1000))
    return measured[-count:]


def keep_priority(group):
    """Linux shares cores among sessions first, and the launcher begins new ones: without this `nice` is lost on the way to the ranks."""
    for rank in range(len(group.addresses)):
        with contextlib.suppress(OSError):  # a kernel without such groups, or a container that may not
            pathlib.Path(f"/proc/{group.pid(rank)}/autogroup").write_text(str(os.nice(0)))


def measure(group, hosts):
    """Medians over steps and ranks; what each step made the busier link send."""
    sent = [hosts.bytes_sent(name) for name in hosts.hosts]
    answers = ask_all(group, STEPS)
    sent = [hosts.bytes_sent(name) - before for name, before in zip(hosts.hosts, sent)]
    steps = [step for rank in range(len(group.addresses)) for step in steps_of(group, rank, STEPS)[COUNTED]]
    return {"step_ms": statistics.median(step for step, _ in steps), "exposed_ms": statistics.median(exposed for _, exposed in steps),
            "sent_bytes": max(sent) / STEPS, "answers": answers}  # fmt: skip


def run(hosts, micro_batches, rate):
    """The step on links without a limit, then with one: `rate` is a function of the first."""
    for name in hosts.hosts:
        hosts.unlimit(name)
    # A folder of its own: the launcher would take the statuses of the group before for this one's.
    group = hosts_group.HostsGroup(hosts, "--model", str(MODEL), "--load-format", "dummy", "--micro-batches", str(micro_batches), "--max-num-batched-tokens", str(ROWS),
                                   "--stall-timeout", "20s", status_dir=f"/tmp/status{micro_batches}")  # fmt: skip
    try:
        keep_priority(group)
        ask_all(group, WARM_UP_STEPS)
        free = measure(group, hosts)
        bits_per_s = rate(free)
        for name in hosts.hosts:
            hosts.limit(name, f"{bits_per_s}bit")
        return free, measure(group, hosts), bits_per_s
    finally:
        group.close()


def main():
    network.enter_cluster()
    hosts_group.BINARY = sys.argv[1]
    hosts = network.Network(("a", "b"))
    try:
        free, overlapped, bits_per_s = run(hosts, 2, lambda step: int(BITS * step["sent_bytes"] / (step["step_ms"] / 1000)))
        whole_free, serial, _ = run(hosts, 1, lambda _: bits_per_s)
        four_free, four, _ = run(hosts, 4, lambda _: bits_per_s)
        exchange_ms = 1000 * BITS * overlapped["sent_bytes"] / bits_per_s
        ideal_ms = max(free["step_ms"], exchange_ms)
        answers = [step["answers"] for step in (free, overlapped, whole_free, serial, four_free, four)]
        if any(other != answers[0] for other in answers):
            raise RuntimeError("the answers differ between whole and split steps")
        difference_ms = overlapped["step_ms"] - free["step_ms"]
        figures = {
            "ratio_vs_ideal": overlapped["step_ms"] / ideal_ms,
            "speedup_vs_serial": serial["step_ms"] / overlapped["step_ms"],
            "exposed_share": overlapped["exposed_ms"] / overlapped["step_ms"],
            "exposed_minus_difference_share": (overlapped["exposed_ms"] - free["exposed_ms"] - difference_ms) / overlapped["step_ms"],
            "cost_of_half_batches": free["step_ms"] / whole_free["step_ms"],
            "ratio_vs_ideal_4": four["step_ms"] / max(four_free["step_ms"], exchange_ms),
            "speedup_vs_serial_4": serial["step_ms"] / four["step_ms"],
            "compute_ms": free["step_ms"],
            "exchange_ms": exchange_ms,
            "overlapped_ms": overlapped["step_ms"],
            "overlapped_4_ms": four["step_ms"],
            "serial_ms": serial["step_ms"],
            "whole_on_free_links_ms": whole_free["step_ms"],
            "exposed_ms": overlapped["exposed_ms"],
            "exposed_on_free_links_ms": free["exposed_ms"],
            "link_megabits_per_s": bits_per_s / 1e6,
        }
        print(json.dumps(figures))
    finally:
        hosts.close()


if __name__ == "__main__":
    main()
