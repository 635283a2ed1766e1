"""A group of daemons over several hosts, started on the first of them by lockstep-run, and what a test asks and does to it."""

import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import unittest

from network import AGENT, SHARED, Network

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/e2e"))
from group import wait_for  # noqa: E402

BINARY = os.environ.get("LOCKSTEP_HOSTS_BINARY", str(REPOSITORY / "build/release/lockstepd"))
LAUNCHER = os.environ.get("LOCKSTEP_HOSTS_LAUNCHER", str(REPOSITORY / "scripts/lockstep-run"))
PORT = 8000
# Around each daemon: what it says is kept on its own host too, where a cut link cannot take it away. A signal to the daemon's process group is none for the keeper.
KEEP_LOG = ["bash", "-c", 'exec "$@" 2> >(trap "" TERM INT USR1 USR2; exec tee -p /tmp/rank.log >&2)', "bash"]
STALL_SECONDS = 2
SLACK_SECONDS = 8  # what a busy machine may add to any bound
PEER_LOST = 3
KILLED = 137


def call(address, method, path, body=None, port=PORT, timeout=60):
    """(status, JSON body or text)."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, json.loads(text) if response.headers.get_content_type() == "application/json" else text
    finally:
        connection.close()


def launch(network, *program, launcher_options=(), slots=1, environment=None, **popen):
    """lockstep-run on the first host, `slots` ranks on each. MPI is told the interface, as a cluster with several would be."""
    names = list(network.hosts)
    hosts = ",".join(f"{name}:{slots}" for name in names)
    command = [LAUNCHER, "-n", str(len(names) * slots), "--host", hosts, *launcher_options,
               "--mpi", "--mca", "plm_rsh_agent", str(AGENT), "--mca", "btl_tcp_if_include", "eth0", "--mca", "oob_tcp_if_include", "eth0", "--", *program]  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKSTEP_", "OMPI_", "PMIX_"))}
    return subprocess.Popen(network.hosts[names[0]].command(*command), stdin=subprocess.DEVNULL, start_new_session=True,
                            env={**kept, **(environment or {})}, **popen)  # fmt: skip


class HostsGroup:
    """One rank on each host. close() leaves nothing behind. Groups on the same hosts need a port and a status_dir each."""

    def __init__(self, network, *options, status_dir=None, port=PORT):
        self.network = network
        self.port = port
        self.addresses = [host.address for host in network.hosts.values()]
        self.log_path = pathlib.Path(f"/tmp/group-{port}.log")
        self.status_dir = pathlib.Path(status_dir or "/tmp/status")  # in the first host's own /tmp, unless given
        with open(self.log_path, "wb") as log:
            self.process = launch(network, *KEEP_LOG, BINARY, "--host", "0.0.0.0", "--port", str(port), "--stall-timeout", f"{STALL_SECONDS}s", *options,
                                  launcher_options=["--grace", "5", "--status-dir", str(self.status_dir)], stdout=log, stderr=subprocess.STDOUT)  # fmt: skip
        try:
            for rank in range(len(self.addresses)):
                self.await_condition(lambda rank=rank: self.status(rank, "/ready") == 200, f"rank {rank} to be ready")
        except BaseException:
            self.close()
            raise

    def log(self):
        return self.log_path.read_text(errors="replace")

    def log_of(self, rank):
        """As it lies on the rank's host."""
        return list(self.network.hosts.values())[rank].run("cat", "/tmp/rank.log")

    def complaints(self):
        """Lines of the log above info. That clients need no key is so here: nobody else reaches these hosts."""
        return [line for line in self.log().splitlines() if re.search(r"Z (warning|error|critical) \[rank", line) and "--api-key-file" not in line]

    def status(self, rank, path):
        try:
            return call(self.addresses[rank], "GET", path, port=self.port, timeout=5)[0]
        except (OSError, http.client.HTTPException):
            return None

    def await_condition(self, condition, what):
        def checked():
            if self.process.poll() is not None:
                raise AssertionError(f"the group left with {self.process.returncode} while the test waited for {what}:\n{self.log()}")
            return condition()

        try:
            wait_for(checked, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def complete(self, rank, **fields):
        return call(self.addresses[rank], "POST", "/v1/completions", {"temperature": 0, **fields}, port=self.port)

    def pid(self, rank):
        """The daemon's process id, by its place in the network: process ids are common to all hosts."""
        name = list(self.network.hosts)[rank]
        for process in self.network.processes_of(name):
            if same_file(f"/proc/{process}/exe", BINARY) and arguments_of(process).count(str(self.port)) > 0:
                return process
        raise AssertionError(f"no daemon on host {name}:\n{self.log()}")

    def recorded(self, rank):
        """The status that the launcher keeps of a rank."""
        first = next(iter(self.network.hosts.values()))
        return int(first.run("cat", self.status_dir / f"rank.{rank}"))

    def drain(self):
        # To the launcher alone: nsenter and taskset have become it.
        self.process.send_signal(signal.SIGUSR1)

    def wait(self, seconds=60):
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the launcher is still there after {seconds} s:\n{self.log()}") from error

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for rank in range(len(self.addresses)):
            try:
                os.kill(self.pid(rank), signal.SIGKILL)
            except (AssertionError, ProcessLookupError):
                pass


def same_file(link, path):
    try:
        return os.path.samefile(link, path)
    except OSError:  # no such process any more, or a kernel thread
        return False


def arguments_of(process):
    try:
        return pathlib.Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:  # no such process any more
        return []


class Stream(threading.Thread):
    """A streamed completion that is read to its end, however it ends."""

    def __init__(self, address, **fields):
        super().__init__(daemon=True)
        self.address = address
        self.body = json.dumps({"temperature": 0, "ignore_eos": True, "stream": True, **fields})
        self.tokens, self.error, self.done, self.cut = 0, None, False, None
        self.start()

    def run(self):
        connection = http.client.HTTPConnection(self.address, PORT, timeout=120)
        try:
            connection.request("POST", "/v1/completions", self.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            for line in response:
                line = line.decode().strip()
                if line == "data: [DONE]":
                    self.done = True
                elif line.startswith("data: "):
                    event = json.loads(line[len("data: ") :])
                    self.error = event.get("error", self.error)
                    self.tokens += 1 if event.get("choices") and event["choices"][0]["text"] else 0
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.cut = repr(error)
        finally:
            connection.close()


class HostsTest(unittest.TestCase):
    """Two hosts for each test."""

    settings = {}  # of the network

    def setUp(self):
        self.network = Network(("a", "b"), **self.settings)
        self.addCleanup(self.network.close)

    def start(self, *options, **settings):
        group = HostsGroup(self.network, *options, **settings)
        self.addCleanup(group.close)
        return group
