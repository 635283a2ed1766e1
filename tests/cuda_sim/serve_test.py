#!/usr/bin/env python3
"""Goal    `lockstepd --device cuda` serves: alone, as a group of two whose rows travel over MPI, and as groups of two and four over NCCL, in one and two micro-batches,
        with graphs and without. Over NCCL, ranks that lose one, killed or stopped, leave within bounds and name it.
Method  Daemons under lockstep-run on the simulated runtime, with the embedded model. What is compared: greedy answers begin with the text that the reference
        implementation gives in float32, as far as each of its choices leads by a margin that bfloat16 cannot turn (tests/data/tiny_moe_golden.json says how
        far); the CPU's daemons are held to the same. Prompts are sent at once, so that they are batched. The device's metrics must have moved, and
        steps have been launched as said; a second trace shows when the devices ran what. LOCKSTEP_TEST_NIGHTLY: every combination of ranks, graphs and micro-batches as well."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from group import GOLDEN, Group, Stream, call, complete, descendants, wait_for  # noqa: E402

SIMULATED = os.environ["LOCKSTEP_SIM_FOLDER"]
PROMPTS = 4
TOKENS = 6
STALL_SECONDS = 4
# What a busy machine may add to the stall timeout. Without an end the ranks would wait for ever.
SLACK_SECONDS = 20


def confident_cases():
    cases = json.loads(GOLDEN.read_text())["cases"]
    return [case for case in cases if case["confident_tokens"] >= TOKENS][:PROMPTS]


def metric(text, name):
    """The value of each series of a family, by its labels."""
    return {labels: float(value) for labels, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)}


def simulated(ranks, schedule, **others):
    return {
        "LD_LIBRARY_PATH": SIMULATED,
        "LOCKSTEP_SIM_SCHEDULE": schedule,
        "LOCKSTEP_SIM_DEVICES": str(ranks),
        "LOCKSTEP_SIM_MACHINE": f"serve-{os.getpid()}",  # whose devices no other test has claimed
        **others,
    }


class Serve(unittest.TestCase):
    def serves(self, ranks, schedule, *options, communicator, graphs="auto"):
        # Long: that simulated devices are slow on a busy machine is nothing to warn of.
        group = Group("--device", "cuda", "--stall-timeout", "100s", "--cuda-graphs", graphs, *options, ranks=ranks, variables=simulated(ranks, schedule))
        try:
            self.assertEqual(self.device_lines(group), {}, "nobody has looked before")
            self.answers_like_the_reference(group)
            self.shows_when_its_device_ran_what(group, communicator)
            for port in group.ports:
                self.shows_its_device(port)
                self.shows_its_graphs(port, graphs, communicator, alone=ranks == 1, split="--micro-batches" in options)
                self.shows_its_communicator(port, ranks, communicator)
            self.assertEqual("CUDA graphs for" in group.log(), graphs != "none", group.log())
            if communicator == "nccl":
                self.assertEqual(len(re.findall(r"communicator nccl.*: rows travel between the devices; the agreement by (?:nccl|mpi): an all-reduce of", group.log())), ranks, group.log())
            group.drain()
            self.assertEqual(group.wait(), 0, group.log())
            # The simulated runtime's variables look like options.
            self.assertEqual([line for line in group.complaints() if "LOCKSTEP_SIM_" not in line], [], group.log())
        finally:
            group.close()

    def answers_like_the_reference(self, group):
        cases = confident_cases()
        self.assertEqual(len(cases), PROMPTS)
        with concurrent.futures.ThreadPoolExecutor(PROMPTS) as clients:
            asked = [
                clients.submit(complete, group.port + index % group.ranks, model="tiny-moe", prompt=case["prompt"], max_tokens=TOKENS, temperature=0)
                for index, case in enumerate(cases)
            ]
            for case, answer in zip(cases, asked):
                answer = answer.result()
                self.assertEqual(answer.status, 200, answer.text)
                text = answer.json["choices"][0]["text"]
                self.assertTrue(text)
                self.assertTrue(case["confident_text"].startswith(text), f"{case['prompt']!r}: {text!r}, expected the beginning of {case['confident_text']!r}")

    def device_lines(self, group):
        """The spans of a device of each rank, by rank and name of the line."""
        trace = call(group.port, "GET", "/debug/trace?steps=10000").json
        self.assertEqual(trace["metadata"]["missing"], [])
        events = trace["traceEvents"]
        names = {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == "thread_name"}
        lines = {}
        for event in events:
            name = names.get((event["pid"], event.get("tid")), "")
            if event["ph"] == "X" and name.startswith("device: "):
                lines.setdefault((event["pid"], name), []).append(event)
        return lines

    def shows_when_its_device_ran_what(self, group, communicator):
        lines = self.device_lines(group)
        for rank in range(group.ranks):
            self.assertTrue(lines.get((rank, "device: compute stream")), f"rank {rank}: {sorted(lines)}")
            # Over MPI rows pass through the host's memory; a rank alone has no exchange.
            self.assertEqual((rank, "device: exchanges of micro-batch 0") in lines, communicator == "nccl", f"rank {rank}: {sorted(lines)}")
        for line, spans in lines.items():
            for before, after in itertools.pairwise(sorted(spans, key=lambda span: (span["ts"], span["ts"] + span["dur"]))):
                self.assertGreaterEqual(after["ts"], before["ts"] + before["dur"] - 0.01, f"two at once on one stream, {line}")

    def shows_its_device(self, port):
        text = call(port, "GET", "/metrics").text
        self.assertIn('device="cuda"', text)
        memory = {re.search(r'state="(\w+)"', labels)[1]: value for labels, value in metric(text, "lockstep_device_memory_bytes").items()}
        self.assertEqual(sorted(memory), ["reserved", "total", "used", "used_max"])
        self.assertGreater(memory["used"], 1 << 20)
        self.assertLessEqual(memory["used"], memory["used_max"])
        self.assertLessEqual(memory["used_max"], memory["reserved"])
        self.assertLessEqual(memory["reserved"], memory["total"])
        for name in ("launches", "host_waits"):
            (value,) = metric(text, f"lockstep_device_{name}_total").values()
            self.assertGreater(value, 10, name)

    def shows_its_graphs(self, port, graphs, communicator, alone, split):
        text = call(port, "GET", "/metrics").text
        steps = {re.search(r'mode="(\w+)"', labels)[1]: value for labels, value in metric(text, "lockstep_graph_steps_total").items()}
        self.assertEqual(sorted(steps), ["full", "none", "piecewise"])
        (launches,) = metric(text, "lockstep_device_graph_launches_total").values()
        self.assertGreater(steps["none"], 0, "prompts have no graphs")
        whole = graphs != "piecewise" and (alone or communicator == "nccl")  # the model has experts: over MPI there are exchanges between graphs
        self.assertEqual(steps["piecewise" if whole else "full"], 0, text)
        if not split:  # whether a step has too few rows to be split depends on when requests come
            self.assertEqual(steps["full" if whole else "piecewise"] > 0, graphs != "none", text)
        self.assertEqual(launches > 0, steps["full"] + steps["piecewise"] > 0)

    def shows_its_communicator(self, port, ranks, communicator):
        text = call(port, "GET", "/metrics").text
        (agreement,) = metric(text, "lockstep_agreement_transport_info")
        (carrier,) = re.findall(r'transport="(\w+)"', agreement)
        self.assertIn(carrier, {"local"} if ranks == 1 else {"mpi", communicator})
        moved = {re.search(r'direction="(\w+)"', labels)[1]: value for labels, value in metric(text, "lockstep_nccl_bytes_total").items()}
        self.assertEqual(sorted(moved), ["received", "sent"])
        for direction, value in moved.items():
            (self.assertGreater if communicator == "nccl" else self.assertEqual)(value, 0, direction)

    def test_one_rank(self):
        self.serves(1, "late", communicator="local")

    def test_one_rank_without_graphs(self):
        self.serves(1, "random", communicator="local", graphs="none")

    def test_two_ranks_over_mpi_in_two_micro_batches(self):
        self.serves(2, "random", "--micro-batches", "2", "--communicator", "mpi", communicator="mpi")

    def test_two_ranks_over_nccl_which_auto_takes(self):
        self.serves(2, "late", communicator="nccl")

    def test_four_ranks_over_nccl_in_two_micro_batches_agreed_ahead(self):
        self.serves(4, "random", "--micro-batches", "2", "--agreement", "pipelined", "--communicator", "nccl", communicator="nccl")


def serves_in_every_combination(self):
    for ranks, graphs, split in itertools.product((1, 2, 4), ("none", "piecewise", "full"), ((), ("--micro-batches", "2"))):
        with self.subTest(ranks=ranks, graphs=graphs, split=split):
            self.serves(ranks, "random", "--communicator", "mpi", *split, communicator="local" if ranks == 1 else "mpi", graphs=graphs)


if os.environ.get("LOCKSTEP_TEST_NIGHTLY"):
    Serve.test_every_combination = serves_in_every_combination


def daemon_of(group, rank):
    """The process id of a rank's daemon."""
    for pid in descendants(group.process.pid):
        with contextlib.suppress(OSError):
            is_daemon = pathlib.Path(f"/proc/{pid}/exe").resolve().name == "lockstepd"
            if is_daemon and f"OMPI_COMM_WORLD_RANK={rank}" in pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0"):
                return pid
    raise AssertionError(f"no daemon of rank {rank}:\n{group.log()}")


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


class Loss(unittest.TestCase):
    def loses(self, victim, number, loss, ranks=3):
        group = Group("--device", "cuda", "--communicator", "nccl", "--stall-timeout", f"{STALL_SECONDS}s", ranks=ranks,
                      variables=simulated(ranks, "random", LOCKSTEP_SIM_NCCL_LOSS=loss))  # fmt: skip
        streams = []
        try:
            pids = [daemon_of(group, rank) for rank in range(ranks)]
            streams = [Stream(port, model="tiny-moe", prompt="Once", max_tokens=100, temperature=0, ignore_eos=True) for port in group.ports]
            for stream in streams:
                next(iter(stream))
            os.kill(pids[victim], number)
            begin = time.monotonic()
            for rank in range(ranks):
                if rank != victim:
                    wait_for(lambda pid=pids[rank]: is_gone(pid), f"rank {rank} to leave")
            took = time.monotonic() - begin
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[victim], signal.SIGKILL)
            self.assertNotEqual(group.wait(), 0, group.log())
            self.assertLess(took, STALL_SECONDS + SLACK_SECONDS, group.log())
            for rank in range(ranks):
                if rank != victim:
                    errors = re.findall(rf"Z (?:error|critical) \[rank {rank}/{ranks}\] (.*)", group.log())
                    self.assertTrue(errors, group.log())
                    self.assertRegex(errors[0], rf"rank {victim}\b", group.log())
        finally:
            for stream in streams:
                stream.close()
            group.close()

    def test_a_rank_is_killed_and_nccl_notices_nothing(self):
        self.loses(1, signal.SIGKILL, "silent")

    def test_a_rank_is_killed_and_nccl_notices(self):
        self.loses(2, signal.SIGKILL, "told")

    def test_a_rank_is_stopped(self):
        self.loses(0, signal.SIGSTOP, "silent")

    def test_one_of_two_is_killed(self):
        self.loses(0, signal.SIGKILL, "silent", ranks=2)

    def test_one_of_two_is_stopped(self):
        self.loses(1, signal.SIGSTOP, "silent", ranks=2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
