#!/usr/bin/env python3
"""Goal    With --agreement pipelined clients get what they get without: tokens, seeded ones too, stops and ends; a broken-off stream frees its room; and the
        group drains with 0.
Method  The same requests, all at once over both ranks, to a group of each kind; then streams that are closed midway, and a drain under streams."""

import concurrent.futures
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from group import Group, Stream, call, complete, wait_for  # noqa: E402

ROUNDS = 3
PROMPTS = ("Call me", "The sea", "a b c d e f g h", "Once there was a ship", "x")
KINDS = (
    {"temperature": 0},
    {"temperature": 0, "stop": [" the", "e"]},
    {"temperature": 0.9, "seed": 7},
    {"temperature": 1.0, "seed": 11, "top_p": 0.9, "frequency_penalty": 0.5},
    {"temperature": 0, "max_tokens": 1},
)  # fmt: skip


def answers_of(group):
    """In a fixed order, however they were computed."""
    requests = [{"prompt": prompt, "max_tokens": 24, "logprobs": 1, **kind} for prompt in PROMPTS for kind in KINDS]
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        futures = [pool.submit(complete, group.port + index % group.ranks, **fields) for index, fields in enumerate(requests)]
        answers = []
        for future in futures:
            response = future.result()
            if response.status != 200:
                raise AssertionError(f"{response.status}: {response.text}\n{group.log()}")
            choice = response.json["choices"][0]
            answers.append((choice["text"], choice["finish_reason"], choice["logprobs"]["token_logprobs"]))
        return answers


def metric(port, name):
    lines = call(port, "GET", "/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))


class Agreement(unittest.TestCase):
    def start(self, *options):
        group = Group(*options)
        self.addCleanup(group.close)
        return group

    def end(self, group):
        group.drain()
        self.assertEqual(group.wait(), 0, group.log())
        self.assertEqual(group.complaints(), [])

    def test_pipelined_gives_the_same_answers_as_sync(self):
        found = []
        for mode in ("sync", "pipelined"):
            group = self.start("--agreement", mode, "--max-num-batched-tokens", "16")
            found += [answers_of(group) for _ in range(ROUNDS)]
            self.end(group)
        for answers in found[1:]:
            self.assertEqual(answers, found[0])
        self.assertEqual({reason for _, reason, _ in found[0]}, {"stop", "length"})

    def test_pipelined_frees_what_a_closed_stream_held_and_drains_under_others(self):
        group = self.start("--agreement", "pipelined")
        for _ in range(ROUNDS):
            streams = [Stream(port, prompt="In the beginning", max_tokens=400, temperature=0, ignore_eos=True) for port in group.ports]
            for stream in streams:
                next(iter(stream))
                stream.close()
            for port in group.ports:
                wait_for(lambda port=port: metric(port, "lockstep_requests_running") == 0, "closed streams to end")
                wait_for(lambda port=port: metric(port, "lockstep_kv_cache_usage_ratio") == 0, "their blocks to be free")
        streams = [Stream(port, prompt="In the beginning", max_tokens=100, temperature=0, ignore_eos=True, stream_options={"include_usage": True})
                   for port in group.ports]  # fmt: skip
        events = [iter(stream) for stream in streams]
        for each in events:
            next(each)
        self.end_under(group, streams, events)

    def end_under(self, group, streams, events):
        group.drain()
        for stream, each in zip(streams, events):
            self.assertEqual(list(each)[-1]["usage"]["completion_tokens"], 100)
            self.assertTrue(stream.done)
            stream.close()
        self.assertEqual(group.wait(), 0, group.log())
        self.assertEqual(group.complaints(), [])


if __name__ == "__main__":
    unittest.main()
