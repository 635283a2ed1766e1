#!/usr/bin/env python3
"""Goal    `lockstepd --device cuda` serves: alone, and as a group of two whose rows travel over MPI, in one and two micro-batches.
Method  Daemons under lockstep-run on the simulated runtime, with the embedded model. What is compared: greedy answers begin with the text that the reference
        implementation gives in float32, as far as each of its choices leads by a margin that bfloat16 cannot turn (tests/data/tiny_moe_golden.json says how
        far); the CPU's daemons are held to the same. Prompts are sent at once, so that they are batched. The device's metrics must have moved."""

import concurrent.futures
import json
import os
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from group import GOLDEN, Group, call, complete  # noqa: E402

SIMULATED = os.environ["LOCKSTEP_SIM_FOLDER"]
PROMPTS = 4
TOKENS = 6


def confident_cases():
    cases = json.loads(GOLDEN.read_text())["cases"]
    return [case for case in cases if case["confident_tokens"] >= TOKENS][:PROMPTS]


def metric(text, name):
    """The value of each series of a family, by its labels."""
    return {labels: float(value) for labels, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)}


class Serve(unittest.TestCase):
    def serves(self, ranks, schedule, *options):
        variables = {
            "LD_LIBRARY_PATH": SIMULATED,
            "LOCKSTEP_SIM_SCHEDULE": schedule,
            "LOCKSTEP_SIM_DEVICES": str(ranks),
            "LOCKSTEP_SIM_MACHINE": f"serve-{os.getpid()}",  # whose devices no other test has claimed
        }
        group = Group("--device", "cuda", *options, ranks=ranks, variables=variables)
        try:
            self.answers_like_the_reference(group)
            for port in group.ports:
                self.shows_its_device(port)
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

    def test_one_rank(self):
        self.serves(1, "late")

    def test_two_ranks_in_two_micro_batches(self):
        self.serves(2, "random", "--micro-batches", "2")


if __name__ == "__main__":
    unittest.main(verbosity=2)
