"""The same load as microbatcher.cpp through the Python form of the seed. Prints JSON."""

import asyncio
import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "reference"))
from microbatcher_reference import AsyncReference  # noqa: E402

SUBMITTERS = 64
ITEMS_PER_SUBMITTER = 4000


async def answers(items):
    return [3 * item + 1 for item in items]


async def submitter(batcher):
    for item in range(ITEMS_PER_SUBMITTER):
        await batcher.submit(item)


async def timing_submitter(batcher, waits):
    for item in range(ITEMS_PER_SUBMITTER):
        begin = time.perf_counter()
        await batcher.submit(item)
        waits.append((time.perf_counter() - begin) * 1e6)


async def main():
    batcher = AsyncReference(answers, 32, 0.002)
    await batcher.start()
    begin = time.perf_counter()
    await asyncio.gather(*[submitter(batcher) for _ in range(SUBMITTERS)])
    seconds = time.perf_counter() - begin
    waits = []
    await asyncio.gather(*[timing_submitter(batcher, waits) for _ in range(SUBMITTERS)])
    await batcher.stop()
    percentiles = statistics.quantiles(waits, n=100)
    print(json.dumps({"items_per_s": SUBMITTERS * ITEMS_PER_SUBMITTER / seconds, "wait_p50_us": percentiles[49], "wait_p99_us": percentiles[98]}))


if __name__ == "__main__":
    asyncio.run(main())
