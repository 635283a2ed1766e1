"""A group of daemons that a test may disturb, its clients, and what was seen of the end: statuses, times, log lines."""

import datetime
import fcntl
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "tests/e2e"))
from group import HOST, ON_CPU, RANKS, call, daemon_environment, free_ports, wait_for  # noqa: E402

BINARY = os.environ.get("LOCKSTEP_FAULT_BINARY", str(REPOSITORY / "build/release/tests/lockstepd_with_faults"))
LAUNCHER = os.environ.get("LOCKSTEP_FAULT_LAUNCHER", str(REPOSITORY / "scripts/lockstep-run"))
TIMES = pathlib.Path(os.environ.get("LOCKSTEP_FAULT_TIMES", str(REPOSITORY / "build/release/fault_times.json")))

# What a device does in a millisecond takes a simulated one a second. Shorter than a sleeping group's keep-alive: who is given up is given up asleep.
STALL_SECONDS = 2.0 if ON_CPU else 4.0
START_SECONDS = 4.0 if ON_CPU else 30.0
# What a busy machine may add to any bound. The times that were taken are in the table.
SLACK_SECONDS = 5.0 if ON_CPU else 20.0
PEER_LOST = 3
BAD_INPUT = 2
KILLED = 137

# Large enough that a prompt takes a second and an answer takes many, whatever the machine; made from a seed, so that no file of it exists.
CONTEXT = 4096
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "attention_bias": False, "hidden_act": "silu", "eos_token_id": 2,
    "hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 64, "num_experts": 16, "num_experts_per_tok": 4, "norm_topk_prob": True, "mlp_only_layers": [], "decoder_sparse_step": 1,
    "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True, "vocab_size": 512,
}  # fmt: skip
if not ON_CPU:  # large enough there
    CONFIG.update(hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2, num_experts=8, num_experts_per_tok=2, num_attention_heads=2,
                  num_key_value_heads=1, head_dim=32, vocab_size=512)  # fmt: skip


class Client(threading.Thread):
    """One streamed completion, read to its end, however it ends."""

    def __init__(self, port, prompt_tokens, max_tokens):
        super().__init__(daemon=True)
        self.port = port
        self.body = json.dumps({"prompt": [7 + i % 400 for i in range(prompt_tokens)], "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True})
        self.tokens = 0
        self.status = None  # HTTP status; None: no answer came
        self.error = None  # the coded error that ended it, as JSON or as an event
        self.done = False  # [DONE] came
        self.cut = None  # what broke the connection
        self.ended_at = None
        self.start()

    def run(self):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=300)
        try:
            connection.request("POST", "/v1/completions", self.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            self.status = response.status
            if response.status != 200:
                self.error = json.loads(response.read())["error"]
                return
            for line in response:
                self.take(line.decode().strip())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.cut = repr(error)
        finally:
            self.ended_at = time.time()
            connection.close()

    def take(self, line):
        if line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            event = json.loads(line[len("data: ") :])
            self.error = event.get("error", self.error)
            self.tokens += 0 if "error" in event else 1


class FaultGroup:
    """`ranks` daemons, one of which has `fault`. close() leaves nothing behind."""

    def __init__(self, *options, ranks=2, fault=None, fault_rank=0, grace=30, stall=STALL_SECONDS, shell=None, model=None):
        self.ranks = ranks
        self.stall = stall
        self.port = free_ports(ranks)
        self.folder = tempfile.TemporaryDirectory(prefix="lockstep-fault-")
        self.path = pathlib.Path(self.folder.name)
        (self.path / "config.json").write_text(json.dumps(CONFIG))
        self.status_dir = self.path / "status"
        self.gate = self.path / "gate"
        os.mkfifo(self.gate)
        self.gate_writer = None
        environment = {name: value for name, value in daemon_environment().items() if not name.startswith("OMPI_")}
        if fault:
            environment.update(LOCKSTEP_TEST_FAULT=fault, LOCKSTEP_TEST_FAULT_RANK=str(fault_rank), LOCKSTEP_TEST_GATE=str(self.gate))
        daemon = [BINARY, "--model", model or str(self.path), "--load-format", "dummy", "--port", str(self.port), "--stall-timeout", f"{stall}s",
                  "--start-timeout", f"{START_SECONDS}s", "--max-num-batched-tokens", "16", "--max-num-seqs", "8", *options]  # fmt: skip
        # A shell line sees the daemon's command as its arguments: for ranks that are started differently.
        program = daemon if shell is None else ["bash", "-c", shell, "bash", *daemon]
        self.log_path = self.path / "log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([LAUNCHER, "-n", str(ranks), "--grace", str(grace), "--status-dir", str(self.status_dir), "--", *program],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)  # fmt: skip

    # ---- looking

    @property
    def ports(self):
        return [self.port + rank for rank in range(self.ranks)]

    def log(self):
        return self.log_path.read_text(errors="replace")

    def health(self, rank, path="/health"):
        """(status, body), or None while nobody answers."""
        try:
            answer = call(self.port + rank, "GET", path)
            return answer.status, answer.json
        except (OSError, http.client.HTTPException):
            return None

    def body(self, rank):
        """What /health says; empty while nobody answers."""
        answer = self.health(rank)
        return answer[1] if answer else {}

    def metric(self, rank, name):
        lines = call(self.port + rank, "GET", "/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))

    def pid(self, rank):
        """The daemon's process id; waits until the launcher has written it."""
        file = self.status_dir / f"pid.{rank}"
        self.await_condition(lambda: file.exists() and file.read_text().endswith("\n"), f"rank {rank} to be started")
        return int(file.read_text().split()[0])

    def await_condition(self, condition, what):
        def checked():
            if condition():
                return True
            if self.process.poll() is not None:
                raise AssertionError(f"the group left with {self.process.returncode} while the test waited for {what}:\n{self.log()}")
            return False

        try:
            wait_for(checked, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def await_state(self, rank, *states):
        self.await_condition(lambda: self.body(rank).get("state") in states, f"rank {rank} to be {' or '.join(states)}")

    def await_ready(self):
        for rank in range(self.ranks):
            self.await_state(rank, "ready")

    def await_idle(self):
        self.await_ready()
        for rank in range(self.ranks):
            self.await_condition(lambda rank=rank: self.body(rank).get("phase") == "sleeping", f"rank {rank} to sleep")

    def await_library(self, rank, name):
        """Until the process has mapped a file of that name: the way to see how far a call into a library has come."""
        maps = pathlib.Path(f"/proc/{self.pid(rank)}/maps")
        self.await_condition(lambda: name in maps.read_text(), f"rank {rank} to have loaded {name}")

    # ---- doing

    def arm(self):
        """The fault begins at the next occasion; returns when that was asked for."""
        self.gate_writer = os.open(self.gate, os.O_WRONLY)
        now = time.time()
        os.write(self.gate_writer, b"!")
        return now

    def release(self):
        """Lets the held rank go on."""
        if self.gate_writer is None:
            self.gate_writer = os.open(self.gate, os.O_WRONLY)
        os.close(self.gate_writer)
        self.gate_writer = None

    def disturb(self, rank, number):
        """Sends the signal; returns when, by the clock that log lines and files carry."""
        pid = self.pid(rank)
        now = time.time()
        os.kill(pid, number)
        return now

    def drain(self):
        self.process.send_signal(signal.SIGUSR1)

    # ---- the end

    def status(self, rank):
        file = self.status_dir / f"rank.{rank}"
        text = file.read_text() if file.exists() else ""
        return int(text) if text.endswith("\n") else None

    def first_error(self):
        """What the launcher returns by its own record: the first error, but a lost peer only where no rank has another one."""
        errors = [int(line.split()[1]) for line in (self.status_dir / "log").read_text().splitlines() if line.split()[1] != "0"]
        return next((status for status in errors if status != PEER_LOST), errors[0] if errors else 0)

    def exit_time(self, rank):
        return (self.status_dir / f"rank.{rank}").stat().st_mtime

    def await_statuses(self, ranks):
        for rank in ranks:
            wait_for(lambda rank=rank: self.status(rank) is not None or self.process.poll() is not None, f"rank {rank} to leave")

    def error_line(self, rank):
        """The first error that the rank logged, and when."""
        found = re.search(rf"^(\S+)Z (?:error|critical) \[rank {rank}/\d+\] (.*)$", self.log(), re.MULTILINE)
        if not found:
            return None, None
        time_of = datetime.datetime.fromisoformat(found.group(1)).replace(tzinfo=datetime.timezone.utc).timestamp()
        return found.group(2), time_of

    def wait(self):
        return self.process.wait(timeout=60)

    def left_over(self):
        """Processes of this group that still run, by the folder that each has on its command line: daemons, their wrappers, mpirun."""
        alive = {}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue  # ended meanwhile
            if self.folder.name in command:
                alive[int(folder.name)] = command
        return alive

    def close(self):
        if self.gate_writer is not None:
            os.close(self.gate_writer)
        if self.process.poll() is None:
            for pid, command in self.left_over().items():
                if command.startswith(BINARY):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.folder.cleanup()


class FaultTest(unittest.TestCase):
    """Keeps the times that its cases took, prints them as a table, and adds them to the file of all."""

    @classmethod
    def setUpClass(cls):
        cls.rows = []

    def start(self, *options, **settings):
        group = FaultGroup(*options, **settings)
        self.addCleanup(group.close)
        return group

    def record(self, case, victim, survivor, begin, group):
        """One line of the table: when the survivor said what was wrong, and when it was gone, in seconds after `begin`."""
        _, said = group.error_line(survivor)
        # The clock of files is a few milliseconds behind.
        row = {"case": case, "victim": victim, "survivor": survivor, "status": group.status(survivor),
               "named_s": round(max(0, said - begin), 3) if said else None, "left_s": round(max(0, group.exit_time(survivor) - begin), 3)}  # fmt: skip
        type(self).rows.append(row)
        return row

    def assert_nothing_left(self, group):
        self.assertEqual(group.left_over(), {})

    @classmethod
    def tearDownClass(cls):
        if not cls.rows:
            return
        print(f"\n{cls.__name__}\n{'case':34} {'victim':>6} {'survivor':>8} {'status':>6} {'named s':>8} {'left s':>8}")
        for row in cls.rows:
            print(f"{row['case']:34} {row['victim']!s:>6} {row['survivor']:>8} {row['status']:>6} {row['named_s']!s:>8} {row['left_s']:>8}")
        sys.stdout.flush()
        TIMES.parent.mkdir(parents=True, exist_ok=True)
        with open(TIMES, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the groups of cases may run side by side
            file.seek(0)
            text = file.read()
            times = json.loads(text) if text else {}
            times[cls.__name__] = cls.rows
            file.truncate(0)
            file.write(json.dumps(times, indent=1) + "\n")
