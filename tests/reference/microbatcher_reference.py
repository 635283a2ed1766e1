"""The seed's microbatchers as they behave there, and what they do with fixed traces: tests/data/microbatcher_traces.json.

Usage: python3 tests/reference/microbatcher_reference.py     (Python's standard library only)

AsyncReference runs on an event loop whose time passes only when nothing is ready, so a trace gives the same batches on every machine. SyncReference runs on
real threads; its traces hold what does not depend on their timing.
"""

import asyncio
import concurrent.futures
import json
import pathlib
import queue
import random
import sys
import threading

OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "microbatcher_traces.json"
US = 1e-6


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer instead of waiting for it. Times are whole microseconds."""

    def __init__(self):
        super().__init__()
        self._now_us = 0
        self._really_select = self._selector.select
        self._selector.select = self._jump

    def time(self):
        return self._now_us * US

    def _jump(self, timeout):
        if timeout is not None and timeout > 0:
            self._now_us += max(1, round(timeout / US))
        return self._really_select(0)


class AsyncReference:
    """One task collects: the first item opens a batch, which leaves when it is full or when that item has waited the timeout."""

    def __init__(self, batch_fn, max_batch_size=32, batch_wait_timeout_s=0.002):
        self._batch_fn = batch_fn
        self._max_batch_size = max_batch_size
        self._timeout_s = batch_wait_timeout_s
        self._queue = asyncio.Queue()
        self._stopping = asyncio.Event()
        self._task = None
        self.batches = []  # [time of leaving, items]

    async def start(self):
        self._task = asyncio.get_running_loop().create_task(self._process_loop())

    async def stop(self):
        self._stopping.set()
        await self._task

    async def submit(self, item):
        if self._stopping.is_set():
            raise RuntimeError("stopped")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.put_nowait((item, future, loop.time()))
        return await future

    async def _next(self, timeout_s):
        """The next item; None when the time is over, or when nothing can come any more."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        if self._stopping.is_set() or (timeout_s is not None and timeout_s <= 0):
            return None
        getter = asyncio.ensure_future(self._queue.get())
        stopped = asyncio.ensure_future(self._stopping.wait())
        done, _ = await asyncio.wait({getter, stopped}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if getter in done:
            return getter.result()
        getter.cancel()
        return None

    async def _collect_batch(self):
        first = await self._next(None)
        if first is None:
            return []
        batch = [first]
        leaves_at = first[2] + self._timeout_s
        loop = asyncio.get_running_loop()
        while len(batch) < self._max_batch_size:
            item = await self._next(leaves_at - loop.time())
            if item is None:
                break
            batch.append(item)
        return batch

    async def _process_loop(self):
        while batch := await self._collect_batch():
            self.batches.append([round(asyncio.get_running_loop().time() / US), [item for item, _, _ in batch]])
            try:
                results = await self._batch_fn([item for item, _, _ in batch])
            except Exception as error:  # all of the batch fail with it
                for _, future, _ in batch:
                    future.set_exception(error)
                continue
            for (_, future, _), result in zip(batch, results):
                future.set_result(result)


class SyncReference:
    """The same on a thread that waits on a queue."""

    def __init__(self, batch_fn, max_batch_size=32, batch_wait_timeout_s=0.002):
        self._batch_fn = batch_fn
        self._max_batch_size = max_batch_size
        self._timeout_s = batch_wait_timeout_s
        self._queue = queue.Queue()
        self._thread = None

    def start(self):
        self._thread = threading.Thread(target=self._process_loop)
        self._thread.start()

    def stop(self):
        self._queue.put(None)
        self._thread.join()

    def submit(self, item):
        future = concurrent.futures.Future()
        self._queue.put((item, future))
        return future.result()

    def _collect_batch(self):
        first = self._queue.get()
        if first is None:
            return [], True
        batch = [first]
        while len(batch) < self._max_batch_size:
            try:
                item = self._queue.get(timeout=self._timeout_s)
            except queue.Empty:
                return batch, False
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _process_loop(self):
        last = False
        while not last:
            batch, last = self._collect_batch()
            if batch:
                self._process_batch(batch)

    def _process_batch(self, batch):
        try:
            results = self._batch_fn([item for item, _ in batch])
        except Exception as error:  # all of the batch fail with it
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results):
            future.set_result(result)


BAD_ITEM = 41  # a batch that holds a multiple of it fails


def answers(items):
    if any(item % BAD_ITEM == 0 for item in items):
        raise ValueError("bad batch")
    return [3 * item + 1 for item in items]


async def outcome_of(awaitable):
    try:
        return await awaitable
    except (ValueError, RuntimeError) as error:
        return str(error)


async def run_async_trace(trace):
    """Submits at the trace's times; a batch takes `batch_us`."""

    async def batch_fn(items):
        await asyncio.sleep(trace["batch_us"] * US)
        return answers(items)

    batcher = AsyncReference(batch_fn, trace["max_batch_size"], trace["timeout_us"] * US)
    await batcher.start()

    async def one(submit_us, item):
        await asyncio.sleep(submit_us * US)
        return await outcome_of(batcher.submit(item))

    async def stop():
        await asyncio.sleep(trace["stop_us"] * US)
        await batcher.stop()

    stopping = asyncio.ensure_future(stop())
    outcomes = await asyncio.gather(*[one(submit_us, item) for submit_us, item in trace["submits"]])
    await stopping
    return {**trace, "batches": batcher.batches, "outcomes": outcomes}


def random_async_trace(rng):
    """Times never coincide modulo 8 with what ends a batch or stops: the order of simultaneous events is nobody's promise."""
    max_batch_size = rng.choice([1, 2, 3, 5, 8])
    gap_us = rng.choice([40, 200, 1200])
    at_us = 0
    submits = []
    for _ in range(rng.randint(1, 40)):
        at_us += 8 * rng.randint(1, gap_us // 8)
        submits.append([at_us, rng.randint(1, 99)])
    batch_us = 8 * rng.randint(1, 100) + 1
    return {"max_batch_size": max_batch_size, "timeout_us": 2003, "batch_us": batch_us, "stop_us": 8 * rng.randint(1, at_us // 8 + 400) + 6, "submits": submits}


def run_sync_trace(items):
    """From one thread, one after the other: each is a batch of its own."""
    batcher = SyncReference(answers, max_batch_size=4, batch_wait_timeout_s=0.0001)
    batcher.start()
    outcomes = []
    for item in items:
        try:
            outcomes.append(batcher.submit(item))
        except ValueError as error:
            outcomes.append(str(error))
    batcher.stop()
    return {"items": items, "outcomes": outcomes}


def main():
    rng = random.Random(20240607)
    traces = []
    for _ in range(60):
        loop = VirtualLoop()
        traces.append(loop.run_until_complete(run_async_trace(random_async_trace(rng))))
        loop.close()
    sync_traces = [run_sync_trace([rng.randint(1, 99) for _ in range(12)]) for _ in range(4)]
    about = (
        f"tests/reference/microbatcher_reference.py on Python {sys.version.split()[0]}. Times in microseconds; submits are [time, item]; batches are [time of leaving, items]; "
        "an outcome is the result or the error's text, by submit."
    )
    rows = ",\n".join(json.dumps(trace, separators=(",", ":")) for trace in traces)
    sync_rows = ",\n".join(json.dumps(trace, separators=(",", ":")) for trace in sync_traces)
    OUTPUT.write_text(f'{{"about": {json.dumps(about)},\n"async": [\n{rows}\n],\n"sync": [\n{sync_rows}\n]}}\n')


if __name__ == "__main__":
    main()
