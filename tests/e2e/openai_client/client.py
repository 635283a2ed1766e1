"""The official client, for a group of daemons, and their metrics."""

import pathlib
import re
import sys

import openai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from group import HOST, LIMIT_SECONDS, GroupTest, call, wait_for  # noqa: E402

__all__ = ["MODEL", "GroupTest", "asynchronous", "call", "metric", "resident_bytes", "synchronous", "wait_for", "wait_until_unused"]

MODEL = "tiny-moe"


def synchronous(port):
    return openai.OpenAI(base_url=f"http://{HOST}:{port}/v1", api_key="none", max_retries=0, timeout=LIMIT_SECONDS)


def asynchronous(port):
    return openai.AsyncOpenAI(base_url=f"http://{HOST}:{port}/v1", api_key="none", max_retries=0, timeout=LIMIT_SECONDS)


def metric(port, name, label=""):
    """The value of the metric with this label (`state="used"`), or of the only one of that name."""
    values = []
    for line in call(port, "GET", "/metrics").text.splitlines():
        if re.match(rf"{name}[{{ ]", line) and label in line:
            values.append(float(line.rsplit(" ", 1)[1]))
    if len(values) != 1:
        raise AssertionError(f"{len(values)} metrics {name} with {label!r}")
    return values[0]


def wait_until_unused(port):
    """Until no request runs and no KV block is taken."""
    wait_for(lambda: metric(port, "lockstep_requests_running") == 0 and metric(port, "lockstep_requests_waiting") == 0, "requests to end")
    wait_for(lambda: metric(port, "lockstep_kv_cache_blocks", 'state="used"') == 0, "KV blocks to be given back")


def resident_bytes(port):
    return metric(port, "process_resident_memory_bytes")
