"""A group of daemons on free ports, started by lockstep-run, and a client for them."""

import contextlib
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LOCKSTEP_E2E_BINARY", str(REPOSITORY / "build/release/lockstepd"))
LAUNCHER = os.environ.get("LOCKSTEP_E2E_LAUNCHER", str(REPOSITORY / "scripts/lockstep-run"))
GOLDEN = REPOSITORY / "tests/data/tiny_moe_golden.json"

HOST = "127.0.0.1"
LIMIT_SECONDS = float(os.environ.get("LOCKSTEP_TEST_LIMIT_SECONDS", "120"))  # of any single wait: far beyond what a sound group takes on a busy machine

# What every daemon of the whole suite gets, NAME=VALUE and so on: entries of CTest run the suites on another device by it. What a test itself asks for wins.
DAEMON_VARIABLES = dict(pair.split("=", 1) for pair in os.environ.get("LOCKSTEP_TEST_DAEMON", "").split())
# How many ranks a group has where the test does not say.
RANKS = int(os.environ.get("LOCKSTEP_TEST_RANKS", "2"))
ON_CPU = DAEMON_VARIABLES.get("LOCKSTEP_DEVICE", "cpu") == "cpu"
MACHINES = itertools.count()


def daemon_environment(**variables):
    """For a daemon or a launcher: nothing that another launcher or the tests' own start left behind. Each has simulated devices of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKSTEP_", "LISTEN_", "OMPI_COMM_WORLD", "PMIX_"))}
    machine = {} if ON_CPU else {"LOCKSTEP_SIM_MACHINE": f"test-{os.getpid()}-{next(MACHINES)}"}
    return {**kept, **DAEMON_VARIABLES, **machine, **variables}


def free_ports(count):
    """The first of `count` neighbouring ports that nobody listens on, below the range from which the kernel deals out ports."""
    for _ in range(200):
        first = random.randrange(20000, 32000 - count)
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.socket())
                sockets[-1].bind((HOST, port))
            return first
        except OSError:
            continue
        finally:
            for bound in sockets:
                bound.close()
    raise RuntimeError(f"no {count} free ports in a row")


def wait_for(condition, what):
    """Polls until `condition()` is true; fails the test by name when it never is."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {LIMIT_SECONDS:g} s for {what}")
        time.sleep(0.01)


class Response:
    """Status, headers and body of one answer."""

    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.text = body.decode()

    @property
    def json(self):
        return json.loads(self.text)


def call(port, method, path, body=None, headers=None):
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(HOST, port, timeout=LIMIT_SECONDS)
    try:
        data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        connection.request(method, path, body=data, headers=headers or ({"Content-Type": "application/json"} if data is not None else {}))
        response = connection.getresponse()
        return Response(response, response.read())
    finally:
        connection.close()


def complete(port, **fields):
    return call(port, "POST", "/v1/completions", fields)


class Stream:
    """A streamed completion: iterates over the decoded events, up to and without [DONE]."""

    path = "/v1/completions"

    def __init__(self, port, **fields):
        self.connection = http.client.HTTPConnection(HOST, port, timeout=LIMIT_SECONDS)
        self.connection.request("POST", self.path, json.dumps({**fields, "stream": True}), {"Content-Type": "application/json"})
        self.response = self.connection.getresponse()
        self.done = False

    def __iter__(self):
        for line in self.response:
            line = line.decode().rstrip("\r\n")
            if not line.startswith("data: "):
                continue  # blank lines between events, comments that keep the connection alive
            if line == "data: [DONE]":
                self.done = True
                self.response.read()
                return
            yield json.loads(line[len("data: ") :])

    def close(self):
        # The socket too: the response holds on to it.
        self.response.close()
        self.connection.close()


class Group:
    """`ranks` daemons with the embedded model. Leaves nothing behind: close() ends whatever still runs."""

    def __init__(self, *options, ranks=RANKS, launcher=LAUNCHER, binary=BINARY, variables=None):
        self.ranks = ranks
        self.port = free_ports(ranks)
        self.log_file = tempfile.TemporaryFile(mode="w+")
        environment = daemon_environment(**(variables or {}))
        command = [launcher, "-n", str(ranks), "--", binary, "--port", str(self.port), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=subprocess.STDOUT, env=environment)
        try:
            for rank in range(ranks):
                wait_for(lambda port=self.port + rank: self.is_ready(port), f"rank {rank} to be ready")
        except BaseException:
            self.close()
            raise

    @property
    def ports(self):
        return range(self.port, self.port + self.ranks)

    def is_ready(self, port):
        if self.process.poll() is not None:
            raise AssertionError(f"the group left with {self.process.returncode} before it was ready:\n{self.log()}")
        return status_of(port, "/ready") == 200

    def log(self):
        self.log_file.seek(0)
        return self.log_file.read()

    def complaints(self):
        """Lines of the log above info. That ranks share cores is no fault of theirs, nor that the simulated runtime's variables look like options."""
        excused = re.compile("share|LOCKSTEP_SIM_")
        return [line for line in self.log().splitlines() if re.search(r"Z (warning|error|critical) \[rank", line) and not excused.search(line)]

    def drain(self):
        self.process.send_signal(signal.SIGUSR1)

    def wait(self):
        """The launcher's status: the first of the ranks' that is not 0."""
        return self.process.wait(timeout=LIMIT_SECONDS)

    def close(self):
        """The first SIGTERM asks for a drain, the second ends the ranks; whoever outlives both is killed."""
        for limit in (10, 20):
            if self.process.poll() is None:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout=limit)
        for process in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        self.log_file.close()


def descendants(ancestor):
    """Children, their children, and so on: the launcher and mpirun put what they start into sessions and process groups of its own."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError, ValueError):  # no process, or it ended while we looked
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = [ancestor]
    for process in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


def status_of(port, path):
    """The status of GET `path`; None while nobody answers."""
    try:
        return call(port, "GET", path).status
    except (OSError, http.client.HTTPException):
        return None


class GroupTest(unittest.TestCase):
    """Tests that share one group, which must have drained with status 0 and without an error in its log at the end."""

    options = ()

    @classmethod
    def setUpClass(cls):
        cls.group = Group(*cls.options)

    @classmethod
    def tearDownClass(cls):
        try:
            cls.group.drain()
            status = cls.group.wait()
            if status != 0 or cls.group.complaints():
                raise AssertionError(f"the group drained with status {status}:\n{cls.group.log()}")
        finally:
            cls.group.close()
