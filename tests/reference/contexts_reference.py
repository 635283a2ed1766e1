"""The seed's micro-batch and forward contexts as they behave there, and what they do with random traces: tests/data/context_traces.json.

Usage: python3 tests/reference/contexts_reference.py     (Python's standard library only)

Threads are real ones; what is recorded does not depend on their timing. Behaviour that ours changes on purpose (docs/library.md) is not recorded: the adaptive
size, which the original computes and then does not use for the rows that remain.
"""

import contextlib
import json
import pathlib
import random
import statistics
import sys
import threading

OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "context_traces.json"


class StreamManager:
    """Two pools of streams, each handed out in turn."""

    def __init__(self, num_compute_streams=2, num_comm_streams=2):
        self._compute = list(range(num_compute_streams))
        self._comm = list(range(num_comm_streams))
        self._next_compute = 0
        self._next_comm = 0

    def get_compute_stream(self):
        stream = self._compute[self._next_compute]
        self._next_compute = (self._next_compute + 1) % len(self._compute)
        return stream

    def get_comm_stream(self):
        stream = self._comm[self._next_comm]
        self._next_comm = (self._next_comm + 1) % len(self._comm)
        return stream


class MicroBatchContext:
    """ceil(batch / size) slices, each with two streams; outputs by index; a barrier for the threads that walk it."""

    def __init__(self, batch_size, micro_batch_size=8, num_threads=1, stream_manager=None, adaptive=True, min_micro_batch=1, max_micro_batch=64):
        if adaptive:
            micro_batch_size = max(min_micro_batch, min(max_micro_batch, micro_batch_size))
        streams = stream_manager or StreamManager()
        count = (batch_size + micro_batch_size - 1) // micro_batch_size
        self.micro_batches = []
        for index in range(count):
            start = index * micro_batch_size
            end = min(start + micro_batch_size, batch_size)
            self.micro_batches.append([index, start, end, streams.get_compute_stream(), streams.get_comm_stream()])
        self._outputs = {}
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(num_threads)

    def record_output(self, output, index):
        with self._lock:
            self._outputs[index] = output

    def wait_barrier(self):
        self._barrier.wait()

    def gather_and_concat(self):
        return [row for index in sorted(self._outputs) for row in self._outputs[index]]


class BatchDescriptor:
    def __init__(self, num_tokens, num_reqs=None, uniform=False, has_lora=False):
        self.fields = [num_tokens, num_reqs, uniform, has_lora]

    def relaxed(self):
        return BatchDescriptor(self.fields[0], None, False, self.fields[3])

    def with_num_tokens(self, num_tokens):
        return BatchDescriptor(num_tokens, *self.fields[1:])


class DPMetadata:
    def __init__(self, rank, counts):
        self.rank, self.counts = rank, counts

    @staticmethod
    def make(world_size, rank, num_tokens, num_tokens_across_dp=None):
        if num_tokens_across_dp is None:
            share, rest = divmod(num_tokens, world_size)
            num_tokens_across_dp = [share + (1 if index < rest else 0) for index in range(world_size)]
        return DPMetadata(rank, num_tokens_across_dp)

    def get_local_tokens(self):
        return self.counts[self.rank]

    def get_total_tokens(self):
        return sum(self.counts)


class ForwardContext:
    def __init__(self, num_tokens=None, batch_descriptor=None, dp_metadata=None, cudagraph_mode=0):
        self.num_tokens, self.batch_descriptor, self.dp_metadata, self.cudagraph_mode = num_tokens, batch_descriptor, dp_metadata, cudagraph_mode

    def get_num_tokens(self):
        if self.num_tokens is not None:
            return self.num_tokens
        if self.batch_descriptor is not None:
            return self.batch_descriptor.fields[0]
        return self.dp_metadata.get_local_tokens() if self.dp_metadata is not None else 0


_local = threading.local()


def get_forward_context():
    context = getattr(_local, "context", None)
    if context is None:
        raise RuntimeError("no forward context is set")
    return context


@contextlib.contextmanager
def set_forward_context(context):
    previous = getattr(_local, "context", None)
    _local.context = context
    try:
        yield context
    finally:
        _local.context = previous


class ForwardTimingTracker:
    def __init__(self):
        self._times = {}

    def record(self, batch_size, elapsed_ms):
        self._times.setdefault(batch_size, []).append(elapsed_ms)

    def get_stats(self):
        return [[size, len(times), statistics.fmean(times), percentile(times, 50), percentile(times, 99), min(times), max(times)] for size, times in sorted(self._times.items())]


def percentile(values, q):
    """Interpolated between neighbours."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * q / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def micro_batch_trace(rng):
    """Threads share the slices, record in an order of their own, and meet at the barrier; the concatenation is that of one thread."""
    trace = {
        "batch_size": rng.choice([0, 1, rng.randint(2, 300)]),
        "micro_batch_size": rng.randint(1, 80),
        "adaptive": rng.random() < 0.5,
        "min_micro_batch": rng.randint(1, 8),
        "max_micro_batch": rng.randint(8, 64),
        "num_compute_streams": rng.randint(1, 4),
        "num_comm_streams": rng.randint(1, 3),
        "num_threads": rng.randint(1, 4),
    }
    streams = StreamManager(trace["num_compute_streams"], trace["num_comm_streams"])
    context = MicroBatchContext(
        trace["batch_size"], trace["micro_batch_size"], trace["num_threads"], streams, trace["adaptive"], trace["min_micro_batch"], trace["max_micro_batch"]
    )
    shuffled = list(context.micro_batches)
    rng.shuffle(shuffled)

    def walk(mine):
        for index, start, end, _, _ in mine:
            context.record_output([3 * row + 1 for row in range(start, end)], index)
        context.wait_barrier()

    threads = [threading.Thread(target=walk, args=(shuffled[number :: trace["num_threads"]],)) for number in range(trace["num_threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**trace, "micro_batches": context.micro_batches, "rows": context.gather_and_concat()}


def context_trace(rng):
    """A random context: what it is made of, and what it answers."""
    world_size = rng.randint(1, 6)
    rank = rng.randrange(world_size)
    total = rng.choice([0, rng.randint(1, 100)])
    metadata = DPMetadata.make(world_size, rank, total)
    descriptor = BatchDescriptor(rng.randint(0, 64), rng.choice([None, rng.randint(1, 8)]), rng.random() < 0.5, rng.random() < 0.5)
    parts = {"num_tokens": rng.choice([None, rng.randint(0, 64)]), "descriptor": rng.random() < 0.5, "dp_metadata": rng.random() < 0.5}
    context = ForwardContext(parts["num_tokens"], descriptor if parts["descriptor"] else None, metadata if parts["dp_metadata"] else None)
    return {
        "world_size": world_size,
        "rank": rank,
        "total": total,
        "counts": metadata.counts,
        "local": metadata.get_local_tokens(),
        "sum": metadata.get_total_tokens(),
        "descriptor_fields": descriptor.fields,
        "relaxed": descriptor.relaxed().fields,
        "with_7_tokens": descriptor.with_num_tokens(7).fields,
        "parts": parts,
        "answer": context.get_num_tokens(),
    }


def nesting_trace(rng):
    """A random program of one thread: 1 enters a context with a token count of its own, 0 leaves; after each step what is seen. -1: nothing is set."""
    program, seen, depth = [], [], 0
    with contextlib.ExitStack() as stack:
        scopes = []
        for step in range(rng.randint(1, 30)):
            if depth > 0 and rng.random() < 0.5:
                program.append(0)
                scopes.pop().close()
                depth -= 1
            else:
                program.append(1)
                scope = stack.enter_context(contextlib.ExitStack())
                scope.enter_context(set_forward_context(ForwardContext(num_tokens=step)))
                scopes.append(scope)
                depth += 1
            try:
                seen.append(get_forward_context().get_num_tokens())
            except RuntimeError:
                seen.append(-1)
        while scopes:
            scopes.pop().close()
    return {"program": program, "seen": seen}


def tracker_trace(rng):
    tracker = ForwardTimingTracker()
    records = [[rng.choice([1, 2, 8, 32]), round(rng.lognormvariate(0, 1), 3)] for _ in range(rng.randint(1, 120))]
    for size, milliseconds in records:
        tracker.record(size, milliseconds)
    return {"records": records, "stats": tracker.get_stats()}


def main():
    rng = random.Random(20241103)
    about = f"tests/reference/contexts_reference.py on Python {sys.version.split()[0]}. micro_batches: [index, start, end, compute stream, comm stream]; stats: [size, count, mean, p50, p99, min, max]."
    kinds = {"micro_batch": (micro_batch_trace, 60), "context": (context_trace, 80), "nesting": (nesting_trace, 40), "tracker": (tracker_trace, 20)}
    parts = []
    for name, (make, count) in kinds.items():
        rows = ",\n".join(json.dumps(make(rng), separators=(",", ":")) for _ in range(count))
        parts.append(f'"{name}": [\n{rows}\n]')
    OUTPUT.write_text(f'{{"about": {json.dumps(about)},\n' + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()
