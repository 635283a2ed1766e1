#!/usr/bin/env python3
"""Goal    Many streams on a KV cache of a few of them: all complete with the text that each has alone, without gap or repeat, and give all blocks back.
Method  Chats without max_tokens, which may fill the whole cache, and completions with log probabilities, greedy and seeded, over two ranks at once; the metric proves
        that some gave their blocks up midway, and others' events that several ran side by side."""

import asyncio
import unittest

from client import MODEL, GroupTest, asynchronous, metric, wait_until_unused

STREAMS = 48
TOPICS = ["Moses", "Abraham", "the sea", "Jerusalem", "David", "the king", "bread"]
KV_BLOCKS = 24  # of 16 KiB and 16 tokens each


def request(number):
    sampling = {"temperature": 0} if number % 2 == 0 else {"temperature": 0.9, "seed": number, "frequency_penalty": 0.2}
    topic = TOPICS[number % len(TOPICS)]
    if number % 3 == 0:
        return "chat", {"model": MODEL, "messages": [{"role": "user", "content": f"Tell me of {topic}."}], **sampling}
    fields = {"model": MODEL, "prompt": f"And it came to pass that {topic}", "max_tokens": 60 + number % 5 * 30, "logprobs": 1, **sampling}
    return "completion", {**fields, "extra_body": {"ignore_eos": True}}


async def answer(client, number):
    """Texts and log probabilities, event by event, and why it ended."""
    kind, fields = request(number)
    if kind == "completion":
        stream = await client.completions.create(**fields, stream=True)
    else:
        stream = await client.chat.completions.create(**fields, stream=True)
    pieces, finish = [], None
    async with stream:
        async for chunk in stream:
            choice = chunk.choices[0]
            finish = choice.finish_reason or finish
            if kind == "completion":
                pieces.append((choice.text, choice.logprobs.token_logprobs if choice.logprobs else None))
            else:
                pieces.append((choice.delta.content or "", None))
    text = "".join(piece for piece, _ in pieces)
    return text, [value for _, values in pieces for value in values or []], finish


class Preemption(GroupTest):
    options = ("--kv-cache-memory", f"{KV_BLOCKS * 16}K")

    async def alone(self):
        async with asynchronous(self.group.port) as client:
            return [await answer(client, number) for number in range(STREAMS)]

    async def at_once(self):
        clients = [asynchronous(port) for port in self.group.ports]
        try:
            return await asyncio.gather(*(answer(clients[number // 2 % len(clients)], number) for number in range(STREAMS)))
        finally:
            for client in clients:
                await client.close()

    def test_gives_every_stream_the_text_that_it_has_alone(self):
        expected = asyncio.run(self.alone())
        for port in self.group.ports:
            self.assertEqual(metric(port, "lockstep_kv_cache_blocks", 'state="free"'), KV_BLOCKS)
            self.assertEqual(metric(port, "lockstep_preemptions_total"), 0)
        found = asyncio.run(self.at_once())
        for number in range(STREAMS):
            with self.subTest(stream=number):
                self.assertEqual(found[number], expected[number])
        for port in self.group.ports:
            wait_until_unused(port)
            self.assertGreater(metric(port, "lockstep_preemptions_total"), 0)


if __name__ == "__main__":
    unittest.main()
