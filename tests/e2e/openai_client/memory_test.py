#!/usr/bin/env python3
"""Goal    Resident memory of both ranks stays flat over many requests.
Method  Short completions and chats, plain and streamed, some that leave, at 16 at a time. After a tenth of them memory must not grow by more than 8 MiB until the
        end. LOCKSTEP_E2E_REQUESTS sets how many (20,000): fewer prove less, and are for machines that are shared."""

import asyncio
import os
import unittest

from client import MODEL, GroupTest, asynchronous, resident_bytes, wait_until_unused

REQUESTS = int(os.environ.get("LOCKSTEP_E2E_REQUESTS", "20000"))
AT_ONCE = 16
GROWTH_BYTES_MAX = 8 << 20


async def one(client, number):
    fields = {"model": MODEL, "max_tokens": 1 + number % 3, "seed": number}
    stream = number % 5 == 0
    if number % 2 == 0:
        answer = await client.completions.create(**fields, prompt=f"And {number} men", stream=stream, logprobs=2 if number % 7 == 0 else None)
    else:
        answer = await client.chat.completions.create(**fields, messages=[{"role": "user", "content": f"Who had {number} sheep?"}], stream=stream)
    if stream:
        async with answer:
            async for _ in answer:
                if number % 15 == 0:
                    break  # leaves


class Memory(GroupTest):
    async def send(self, first, last):
        clients = [asynchronous(port) for port in self.group.ports]
        numbers = iter(range(first, last))

        async def worker(client):
            for number in numbers:
                await one(client, number)

        try:
            await asyncio.gather(*[worker(clients[i % len(clients)]) for i in range(AT_ONCE)])
        finally:
            for client in clients:
                await client.close()

    def test_stays_flat_over_many_requests(self):
        self.assertGreaterEqual(REQUESTS, 1000, "LOCKSTEP_E2E_REQUESTS: fewer than 1,000 requests show nothing")
        warm = REQUESTS // 10
        asyncio.run(self.send(0, warm))
        for port in self.group.ports:
            wait_until_unused(port)
        before = [resident_bytes(port) for port in self.group.ports]
        asyncio.run(self.send(warm, REQUESTS))
        for port in self.group.ports:
            wait_until_unused(port)
        growth = [resident_bytes(port) - start for port, start in zip(self.group.ports, before, strict=True)]
        print(f"resident bytes after {warm} requests {before}, growth over {REQUESTS - warm} more {growth}")
        self.assertLess(max(growth), GROWTH_BYTES_MAX)


if __name__ == "__main__":
    unittest.main()
