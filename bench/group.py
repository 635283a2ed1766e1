"""A running group of ranks, as the benchmarks start it. Standard library only."""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPT = "And it came to pass in those days, that there went out a decree that all the world should be taxed."
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
    """A running group of ranks; with the embedded model unless the options name another."""

    def __init__(self, build_dir, world_size, options=(), prompt=PROMPT):
        self.prompt = prompt
        self.port = free_port(world_size)
        self.world_size = world_size
        daemon = [str(build_dir / "lockstepd"), "--port", str(self.port), *options]
        command = daemon if world_size == 1 else [str(ROOT / "scripts" / "lockstep-run"), "-n", str(world_size), "--", *daemon]
        self.log = tempfile.TemporaryFile("a+b")  # and no pipe: nobody reads while the group runs, and a full pipe stops whoever logs
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()

    def log_text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-4000:]

    def wait_ready(self):
        deadline = self.started_at + START_LIMIT_S
        for rank in range(self.world_size):
            while True:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the group of {self.world_size} did not become ready: {self.log_text()}")
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
        body = {"prompt": self.prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
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
                body = {"prompt": self.prompt, "max_tokens": 4, "temperature": 0, "stream": True}
                connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                if answer.status == 200 and answer.readline().startswith(b"data: "):
                    return time.monotonic() - self.started_at
            except OSError:
                pass
            time.sleep(0.002)
        raise RuntimeError(f"no token within the limit: {self.log_text()}")

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
