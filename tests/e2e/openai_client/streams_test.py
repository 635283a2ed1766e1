#!/usr/bin/env python3
"""Goal    200 streams at once on two ranks: each gives the text that the same request gives alone, and those that leave midway take nothing with them.
Method  Completions and chats, greedy and seeded, over both ranks through the asynchronous client; 30 % leave after a few events, whose text so far must begin the
        same request's whole text. Then no request runs and no KV block is taken; then all over again, on what the first round left."""

import asyncio
import random
import unittest

from client import MODEL, GroupTest, asynchronous, wait_until_unused

STREAMS = 200
LEAVE_PERCENT = 30
TOPICS = ["Moses", "Abraham", "the sea", "Jerusalem", "David", "the king", "bread", "the mountain", "Egypt", "the temple"]


def request(number):
    """What stream `number` asks: some requests are alike but for the seed."""
    fields = {"model": MODEL, "max_tokens": 24 + number % 3 * 8}
    fields |= {"temperature": 0} if number % 2 == 0 else {"temperature": 0.9, "seed": number % 50}
    topic = TOPICS[number % len(TOPICS)]
    if number % 4 < 2:
        return "completion", {**fields, "prompt": f"And it came to pass that {topic}", "extra_body": {"ignore_eos": True}}
    return "chat", {**fields, "messages": [{"role": "user", "content": f"Tell me of {topic}."}], "extra_body": {"ignore_eos": True}}


async def pieces(client, kind, fields):
    """Yields the text of each event."""
    if kind == "completion":
        stream = await client.completions.create(**fields, stream=True)
    else:
        stream = await client.chat.completions.create(**fields, stream=True)
    async with stream:
        async for chunk in stream:
            choice = chunk.choices[0]
            yield choice.text if kind == "completion" else choice.delta.content or ""


async def whole_text(client, kind, fields):
    return "".join([piece async for piece in pieces(client, kind, fields)])


async def start_of_text(client, kind, fields, events):
    """Leaves after so many events: closing the stream closes its connection."""
    text = ""
    stream = pieces(client, kind, fields)
    async for piece in stream:
        text += piece
        events -= 1
        if events == 0:
            break
    await stream.aclose()
    return text


class Streams(GroupTest):
    options = ("--max-pending", "512")

    async def expected(self):
        """Each different request, run alone."""
        texts = {}
        async with asynchronous(self.group.port) as client:
            for number in range(STREAMS):
                key = repr(request(number))
                if key not in texts:
                    texts[key] = await whole_text(client, *request(number))
        return texts

    async def all_at_once(self, seed):
        draws = random.Random(seed)
        leaving = set(draws.sample(range(STREAMS), STREAMS * LEAVE_PERCENT // 100))
        clients = [asynchronous(port) for port in self.group.ports]
        try:
            tasks = []
            for number in range(STREAMS):
                client = clients[number // 2 % len(clients)]
                kind, fields = request(number)
                if number in leaving:
                    tasks.append(start_of_text(client, kind, fields, draws.randint(1, 12)))
                else:
                    tasks.append(whole_text(client, kind, fields))
            return leaving, await asyncio.gather(*tasks)
        finally:
            for client in clients:
                await client.close()

    def test_are_not_mixed_up_and_leave_nothing_behind(self):
        expected = asyncio.run(self.expected())
        self.assertGreater(len(set(expected.values())), len(expected) // 2)  # or a mix-up could not be seen
        for seed in (1, 2):
            leaving, texts = asyncio.run(self.all_at_once(seed))
            for number, text in enumerate(texts):
                whole = expected[repr(request(number))]
                with self.subTest(seed=seed, stream=number, leaves=number in leaving):
                    if number in leaving:
                        self.assertTrue(whole.startswith(text), f"{text!r} does not begin {whole!r}")
                    else:
                        self.assertEqual(text, whole)
            for port in self.group.ports:
                wait_until_unused(port)


if __name__ == "__main__":
    unittest.main()
