#!/usr/bin/env python3
"""Goal    GET /debug/trace gives every span of the newest steps of all ranks on one clock, as JSON that Perfetto reads, and the metrics of exposed exchange time agree with it.
Method  Two ranks answer a request, split into micro-batches or not; the trace is parsed and compared with the step's structure."""

import collections
import os
import pathlib
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from group import Group, GroupTest, call, complete, descendants  # noqa: E402

STAGES = {"embed", "attention", "dispatch", "experts", "combine", "weigh", "head"}
AROUND = {"plan", "agree", "sample", "deliver"}
# Lines from here on are a device's; tests/cuda_sim/serve_test.py looks at them.
HOST_LINES = 6


def spans_of(port, steps, ranks="local"):
    answer = call(port, "GET", f"/debug/trace?ranks={ranks}&steps={steps}")
    assert answer.status == 200, answer.text
    return [event for event in answer.json["traceEvents"] if event["ph"] == "X" and event["tid"] < HOST_LINES]


def agreements_of(spans, rank):
    return {span["args"]["step"]: span for span in spans if span["pid"] == rank and span["name"] == "agree"}


def exchange_seconds(port, exposed):
    lines = call(port, "GET", "/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("lockstep_comm_seconds_total{") and f'exposed="{exposed}"' in line)


def exposed_seconds(spans):
    """Of one step of one rank: with an exchange under way and no stage, or in a stage that had no core while one was."""
    at = sorted((time, change, kind) for span in spans for kind in ("exchange" if span["name"] in ("dispatch", "combine") else "stage" if span["name"] in STAGES else None,) if kind
                for time, change in ((round(1000 * span["ts"]), 1), (round(1000 * (span["ts"] + span["dur"])), -1)))  # fmt: skip
    open_now, before, exposed, under = collections.Counter(), 0, 0, []
    for time, change, kind in at:
        if open_now["exchange"]:
            under.append((before, time))
            exposed += 0 if open_now["stage"] else time - before
        before = time
        open_now[kind] += change
    for span in spans:
        begin, end = round(1000 * span["ts"]), round(1000 * (span["ts"] + span["dur"]))
        exposed += min(round(1000 * span["args"].get("off_core_us", 0)), sum(max(0, min(end, last) - max(begin, first)) for first, last in under))
    return exposed / 1e9


class WholeSteps(GroupTest):
    options = ("--micro-batches", "1")

    def test_a_step_has_every_span_once_for_its_layers(self):
        complete(self.group.port, prompt="In the beginning", max_tokens=8, temperature=0, ignore_eos=True)
        for rank, port in enumerate(self.group.ports):
            by_step = collections.defaultdict(list)
            for span in spans_of(port, 10000):
                self.assertEqual(span["pid"], rank)
                by_step[span["args"]["step"]].append(span)
            computed = [spans for spans in by_step.values() if len(spans) > 2]
            self.assertGreaterEqual(len(computed), 8)
            for spans in computed:
                count = collections.Counter(span["name"] for span in spans)
                self.assertEqual(set(count), STAGES | AROUND)
                self.assertEqual({count[name] for name in ("dispatch", "experts", "combine", "weigh", "attention")}, {count["attention"]})
                self.assertEqual({count[name] for name in AROUND | {"embed", "head"}}, {1})
                self.assertEqual({span["tid"] for span in spans}, {0})  # not split: all on the step thread
                ordered = sorted(spans, key=lambda span: span["ts"])
                for before, after in zip(ordered, ordered[1:]):
                    self.assertLessEqual(before["ts"] + before["dur"], after["ts"] + 0.002, f"{before} and {after} overlap on one thread")

    def test_ranks_of_one_host_share_a_clock(self):
        complete(self.group.port, prompt="In the beginning", max_tokens=8, temperature=0, ignore_eos=True)
        agreed = [{span["args"]["step"]: span for span in spans_of(port, 10000) if span["name"] == "agree"} for port in self.group.ports]
        common = set(agreed[0]) & set(agreed[1])
        self.assertGreaterEqual(len(common), 8)
        for step in common:
            first, second = agreed[0][step], agreed[1][step]
            # An agreement ends on no rank before all have begun it.
            self.assertGreaterEqual(first["ts"] + first["dur"], second["ts"])
            self.assertGreaterEqual(second["ts"] + second["dur"], first["ts"])

    def test_any_rank_gives_the_spans_of_all_on_its_own_clock(self):
        complete(self.group.port, prompt="In the beginning", max_tokens=8, temperature=0, ignore_eos=True)
        for rank, port in enumerate(self.group.ports):
            answer = call(port, "GET", "/debug/trace?steps=10000").json
            self.assertEqual(answer["metadata"]["clock_of_rank"], rank)
            self.assertEqual(answer["metadata"]["missing"], [])
            self.assertEqual(sorted(entry["rank"] for entry in answer["metadata"]["ranks"]), list(range(self.group.ranks)))
            spans = [event for event in answer["traceEvents"] if event["ph"] == "X"]
            first, second = agreements_of(spans, 0), agreements_of(spans, 1)
            common = set(first) & set(second)
            self.assertGreaterEqual(len(common), 8)
            for step in common:  # an agreement ends on no rank before all have begun it; times are rounded to 1 ns
                self.assertGreaterEqual(first[step]["ts"] + first[step]["dur"] + 0.002, second[step]["ts"])
                self.assertGreaterEqual(second[step]["ts"] + second[step]["dur"] + 0.002, first[step]["ts"])

    def test_one_rank_alone_is_given_by_any(self):
        complete(self.group.port, prompt="In the beginning", max_tokens=8, temperature=0, ignore_eos=True)
        for asked, port in enumerate(self.group.ports):
            for rank in range(len(self.group.ports)):
                answer = call(port, "GET", f"/debug/trace?rank={rank}").json
                self.assertEqual(answer["metadata"]["clock_of_rank"], asked)
                self.assertEqual([entry["rank"] for entry in answer["metadata"]["ranks"]], [rank])
                self.assertEqual({event["pid"] for event in answer["traceEvents"]}, {rank})

    def test_without_micro_batches_all_exchange_is_exposed(self):
        complete(self.group.port, prompt="In the beginning", max_tokens=8, temperature=0, ignore_eos=True)
        self.assertGreater(exchange_seconds(self.group.port, "true"), 0)
        self.assertEqual(exchange_seconds(self.group.port, "false"), 0)

    def test_a_wrong_number_of_steps_is_refused(self):
        for query, value in (("steps=0", '"0"'), ("steps=many", '"many"'), ("step=1", '"step=1"'), ("ranks=1", '"1"'), (f"rank={self.group.ranks}", f'"{self.group.ranks}"'), ("rank=0&ranks=all", '"ranks=all"')):
            answer = call(self.group.port, "GET", f"/debug/trace?{query}")
            self.assertEqual(answer.status, 400)
            self.assertIn("expected", answer.json["error"]["message"])
            self.assertIn(value, answer.json["error"]["message"])


class StoppedRank(unittest.TestCase):
    def test_a_rank_that_does_not_answer_is_named_and_the_others_spans_come(self):
        group = Group("--stall-timeout", "60s", ranks=3)
        try:
            complete(group.port, prompt="In the beginning", max_tokens=8, temperature=0, ignore_eos=True)
            daemon = next(pid for pid in descendants(group.process.pid) if is_daemon_of(pid, group.port + 2))
            os.kill(daemon, signal.SIGSTOP)
            answer = call(group.port, "GET", "/debug/trace").json
            os.kill(daemon, signal.SIGCONT)
            self.assertEqual([entry["rank"] for entry in answer["metadata"]["missing"]], [2])
            self.assertIn("did not come within 5.0 s", answer["metadata"]["missing"][0]["cause"])
            self.assertEqual({event["pid"] for event in answer["traceEvents"]}, {0, 1})
            self.assertEqual(call(group.port, "GET", "/debug/trace").json["metadata"]["missing"], [])
        finally:
            group.close()


def is_daemon_of(pid, port):
    """Listens there: by the log's first lines ranks have ports, not process ids."""
    try:
        listening = {line.split()[9] for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:] if int(line.split()[1].rsplit(":")[1], 16) == port}
        return any(os.readlink(entry) in {f"socket:[{inode}]" for inode in listening} for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


class SplitSteps(GroupTest):
    options = ("--micro-batches", "2")

    def test_micro_batches_lie_on_two_streams_and_metrics_count_what_the_trace_shows(self):
        complete(self.group.port, prompt="And it came to pass in those days. " * 20, max_tokens=8, temperature=0, ignore_eos=True)
        spans = spans_of(self.group.port, 10000)
        split = {span["args"]["step"] for span in spans if span["args"].get("micro_batch") == 1}
        self.assertTrue(split)
        for span in spans:
            if span["args"]["step"] in split and span["name"] in STAGES:
                exchanges = span["name"] in ("dispatch", "combine")
                self.assertEqual(span["tid"], 2 + span["args"]["micro_batch"] if exchanges else 1)
        exchanged = sum(span["dur"] for span in spans if span["name"] in ("dispatch", "combine")) / 1e6
        counted = exchange_seconds(self.group.port, "true") + exchange_seconds(self.group.port, "false")
        self.assertAlmostEqual(counted, exchanged, delta=0.001 * max(exchanged, 1e-3))
        for span in spans:
            if "off_core_us" in span["args"]:
                self.assertNotIn(span["name"], ("dispatch", "combine"))
                self.assertIn(span["args"]["step"], split)
                self.assertLessEqual(span["args"]["off_core_us"], span["dur"])
        exposed = sum(exposed_seconds([span for span in spans if span["args"]["step"] == step]) for step in {span["args"]["step"] for span in spans})
        self.assertAlmostEqual(exchange_seconds(self.group.port, "true"), exposed, delta=0.001 * max(exposed, 1e-3))


if __name__ == "__main__":
    unittest.main()
