#!/usr/bin/env python3
"""Benchmarks of lockstep: `./dev bench [section ...] [--json FILE]`.

Every figure that is a claim is a ratio against a baseline of the same run, or the median of several runs. Standard library only.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time

import library.sections

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPT = "And it came to pass in those days, that there went out a decree that all the world should be taxed."
GENERATED_TOKENS = 128
START_LIMIT_S = 60


def free_port(count):
    """The first of `count` free ports in a row."""
    for base in range(21000, 40000, 16):
        sockets = []
        try:
            for offset in range(count):
                probe = socket.socket()
                sockets.append(probe)
                probe.bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
    raise RuntimeError("no free ports")


class Group:
    """A running group of ranks with the embedded model."""

    def __init__(self, build_dir, world_size, options=()):
        self.port = free_port(world_size)
        self.world_size = world_size
        daemon = [str(build_dir / "lockstepd"), "--port", str(self.port), *options]
        command = daemon if world_size == 1 else [str(ROOT / "scripts" / "lockstep-run"), "-n", str(world_size), "--", *daemon]
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process.stderr.close()

    def wait_ready(self):
        deadline = self.started_at + START_LIMIT_S
        for rank in range(self.world_size):
            while True:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the group of {self.world_size} did not become ready: {self.process.stderr.read() if self.process.poll() is not None else 'timeout'}")
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port + rank, timeout=5)
                    connection.request("GET", "/ready")
                    if connection.getresponse().status == 200:
                        break
                except OSError:
                    pass
                time.sleep(0.005)

    def complete(self, rank, tokens):
        connection = http.client.HTTPConnection("127.0.0.1", self.port + rank, timeout=300)
        body = {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        payload = json.loads(answer.read())
        if answer.status != 200 or payload["usage"]["completion_tokens"] != tokens:
            raise RuntimeError(f"status {answer.status}: {payload}")
        return tokens

    def first_token(self):
        """Seconds from the launch to the first streamed token of rank 0, polling until the port answers."""
        deadline = self.started_at + START_LIMIT_S
        while time.monotonic() < deadline:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                body = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "stream": True}
                connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                if answer.status == 200 and answer.readline().startswith(b"data: "):
                    return time.monotonic() - self.started_at
            except OSError:
                pass
            time.sleep(0.002)
        raise RuntimeError("no token within the limit")

    def rank_pids(self):
        """Process ids of the daemons of this group."""
        wanted = str(self.port).encode()
        pids = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if arguments and arguments[0].endswith(b"/lockstepd") and wanted in arguments:
                    pids.append(int(entry.name))
        return pids


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def section_agreement(build_dir):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    bind = ["--bind-to", "core"] if (os.cpu_count() or 1) >= 2 else ["--oversubscribe", "--bind-to", "none"]
    command = ["mpirun", "-n", "2", *bind, str(build_dir / "bench" / "bench_agreement")]
    runs = [json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300).stdout) for _ in range(3)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def section_idle(build_dir):
    seconds = 10.0
    with Group(build_dir, 2) as group:
        group.wait_ready()
        group.complete(0, 8)
        pids = group.rank_pids()
        before = [cpu_seconds(pid) for pid in pids]
        time.sleep(seconds)  # the measured interval, not a wait for a condition
        after = [cpu_seconds(pid) for pid in pids]
    return {"cpu_share_of_one_core": max((b - a) / seconds for a, b in zip(before, after)), "ranks": len(pids)}


def throughput(group, concurrency):
    total = 4 * concurrency if concurrency > 1 else 6
    ranks = [index % group.world_size for index in range(total)]
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        begin = time.monotonic()
        tokens = sum(pool.map(lambda rank: group.complete(rank, GENERATED_TOKENS), ranks))
        return tokens / (time.monotonic() - begin)


def section_serving(build_dir):
    figures = {}
    for world_size in (1, 2):
        starts = []
        for _ in range(5):
            with Group(build_dir, world_size) as group:
                starts.append(group.first_token())
        figures[f"world{world_size}_start_to_first_token_s"] = statistics.median(starts)
        with Group(build_dir, world_size) as group:
            group.wait_ready()
            throughput(group, 1)  # warm
            for concurrency in (1, 8, 32):
                figures[f"world{world_size}_tokens_per_s_{concurrency}"] = statistics.median(throughput(group, concurrency) for _ in range(3))
    return figures


SECTIONS = {"agreement": section_agreement, "idle": section_idle, "serving": section_serving, **library.sections.SECTIONS}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"some of: {', '.join(SECTIONS)}; all when none is named")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--build-dir", default=str(ROOT / "build" / "release"))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    results = {}
    for name in arguments.sections or SECTIONS:
        results[name] = {figure: round(value, 4) for figure, value in SECTIONS[name](pathlib.Path(arguments.build_dir)).items()}
        print(name)
        for figure, value in results[name].items():
            print(f"  {figure:<36} {value}")
        sys.stdout.flush()
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
