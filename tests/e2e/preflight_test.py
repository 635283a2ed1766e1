#!/usr/bin/env python3
"""Goal    --check and --dry-run say what a start would do, leave with its status, and neither serve nor open a port.
Method  lockstepd alone and under the launcher, with good and wrong input; the planned weights are compared with the memory of a daemon that loaded them."""

import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import unittest
import urllib.request

from group import BINARY, LAUNCHER, LIMIT_SECONDS, REPOSITORY, daemon_environment, free_ports
from start_test import run

EMBEDDED = REPOSITORY / "model/embedded"
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Preflight(unittest.TestCase):
    def model(self, **fields):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        shutil.copytree(EMBEDDED, folder / "model")
        config = folder / "model/config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))
        return folder / "model"

    def good(self, done):
        self.assertEqual(done.returncode, 0, done.stderr)
        complaints = [line for line in done.stderr.splitlines() if re.search(r" (warning|error) \[rank", line)]
        self.assertEqual([line for line in complaints if "LOCKSTEP_SIM_" not in line], [])  # the simulated runtime's variables look like options
        self.assertNotIn("listening", done.stderr)
        return done.stdout

    def refused(self, done, *words):
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stdout, "")
        for word in words:
            self.assertIn(word, done.stderr)

    def test_check_of_what_is_good_says_so_once(self):
        self.assertEqual(self.good(run(BINARY, "--check")), "lockstepd: ok: tiny-moe can be served by 1 rank\n")
        self.assertEqual(self.good(run(BINARY, LOCKSTEP_CHECK="true")), "lockstepd: ok: tiny-moe can be served by 1 rank\n")
        self.assertEqual(self.good(run(BINARY, "--check", "--assume-ranks", "8")), "lockstepd: ok: tiny-moe can be served by 8 ranks\n")
        self.assertEqual(self.good(run(LAUNCHER, "-n", "2", "--", BINARY, "--check")), "lockstepd: ok: tiny-moe can be served by 2 ranks\n")

    def test_check_opens_no_port(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.good(run(BINARY, "--check", "--port", str(taken.getsockname()[1])))

    def test_check_names_what_is_wrong(self):
        self.refused(run(BINARY, "--check", "--max-num-seqs", "0"), "--max-num-seqs")
        self.refused(run(BINARY, "--check", "--model", "/nonexistent"), "/nonexistent")
        self.refused(run(BINARY, "--check", "--model", str(self.model(hidden_size=-1))), "config.json", "hidden_size is -1")
        self.refused(run(BINARY, "--check", "--group-secret-file", "/nonexistent"), "--group-secret-file")
        self.refused(run(BINARY, "--check", "--port", "65535", "--assume-ranks", "2"), "--port: 65535 leaves no room for the 2 ranks")
        self.refused(run(BINARY, "--check", DNNL_MAX_CPU_ISA="BOGUS"), "DNNL_MAX_CPU_ISA", "BOGUS", "AVX512_CORE")
        self.refused(run(BINARY, "--assume-ranks", "2"), "--assume-ranks belongs to --check and --dry-run")
        self.refused(run(LAUNCHER, "-n", "2", "--", BINARY, "--check", "--assume-ranks", "4"), "--assume-ranks is 4, but mpirun has started 2 ranks")
        for file in ("model.safetensors", "tokenizer.json"):
            model = self.model()
            (model / file).write_bytes((model / file).read_bytes()[:-1000])
            self.refused(run(BINARY, "--check", "--model", str(model)), file)

    def test_what_a_group_cannot_talk_by_is_named_by_check_dry_run_and_start(self):
        no_gpu = "--communicator nccl: this rank does not compute on a GPU: give --device cuda"
        on_the_cpu = ("--device", "cpu", "--cuda-graphs", "none")
        nccl = ("--communicator", "nccl", *on_the_cpu)
        for what in ("--check", "--dry-run"):
            self.refused(run(BINARY, what, "--assume-ranks", "2", *nccl), no_gpu)
            self.good(run(BINARY, what, *nccl))  # alone there is nobody to talk to
        self.refused(run(LAUNCHER, "-n", "2", "--", BINARY, *nccl), no_gpu)
        model = str(self.model(hidden_size=4096))
        long = ("--model", model, "--load-format", "dummy", "--max-num-batched-tokens", "1000000", "--communicator", "mpi", *on_the_cpu)
        self.refused(run(BINARY, "--check", "--assume-ranks", "2", *long), "--max-num-batched-tokens is 1000000", "of a message of MPI; give at most")

    def test_check_names_addresses_that_cannot_be_had(self):
        away = "203.0.113.7"  # of a network that is for documentation alone
        self.refused(run(BINARY, "--check", "--host", away), f"--port: cannot listen on {away}")
        self.refused(run(BINARY, "--check", "--port", "0", "--host", away, "--shared-port", "9"), away)
        self.refused(run(BINARY, "--check", "--metrics-address", f"{away}:9090"), f"--metrics-address {away}:9090", "cannot listen")
        for peers in (away, "203.0.113.0/24"):
            self.refused(run(BINARY, "--check", "--assume-ranks", "2", "--peer-bind", peers), "--peer-bind", peers)
        self.good(run(BINARY, "--check", "--assume-ranks", "2", "--peer-bind", "127.0.0.1", "--host", "localhost", "--metrics-address", "127.0.0.1:9090"))

    def test_check_names_sockets_that_cannot_be_made_and_makes_none(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        (folder / "file").write_text("precious")
        path = str(folder / "http.sock")
        self.good(run(BINARY, "--check", "--assume-ranks", "2", "--unix-socket", path))
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as running:
            running.bind(path)
            running.listen()
            self.good(run(BINARY, "--check", "--unix-socket", path))
        self.refused(run(BINARY, "--check", "--unix-socket", str(folder / "none/http.sock")), "--unix-socket", "No such file or directory")
        self.refused(run(BINARY, "--check", "--unix-socket", str(folder / "file/http.sock")), "--unix-socket", "Not a directory")
        self.refused(run(BINARY, "--check", "--unix-socket", str(folder / "file")), "--unix-socket", "something else than a socket")
        longest = str(folder / ("x" * (106 - len(str(folder)))))
        self.good(run(BINARY, "--check", "--unix-socket", longest))
        self.refused(run(BINARY, "--check", "--assume-ranks", "2", "--unix-socket", longest), "--unix-socket", "at most 107 bytes")
        self.assertEqual({file.name for file in folder.iterdir()}, {"file", "http.sock"})

    def test_check_warns_of_variables_that_are_no_option(self):
        done = run(BINARY, "--check", LOCKSTEP_MAX_NUM_SEQ="4")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"warning .*LOCKSTEP_MAX_NUM_SEQ is set, but no option has that name: .*did you mean LOCKSTEP_MAX_NUM_SEQS\?")

    def test_check_names_memory_that_is_not_there(self):
        model = str(self.model(vocab_size=1 << 22, hidden_size=1 << 16, moe_intermediate_size=1 << 16))
        self.refused(run(BINARY, "--check", "--load-format", "dummy", "--model", model), "weights and KV cache of the 1 rank on this host take", "TiB")
        done = run(BINARY, "--dry-run", "--load-format", "dummy", "--model", model)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("warning", done.stderr)
        self.assertRegex(done.stdout, r"this host: its ranks take [\d.]+ TiB of")

    def test_dry_run_shows_which_rank_holds_what(self):
        alone = self.good(run(BINARY, "--dry-run"))
        self.assertIn("group    1 rank, started by none", alone)
        self.assertRegex(alone, r"device   cpu with (avx|x86)")
        self.assertRegex(alone, r"\n0 .* 0-7\n\nthis host")
        launched = self.good(run(LAUNCHER, "-n", "3", "--", BINARY, "--dry-run", "--max-num-seqs", "2", "--micro-batches", "2"))
        self.assertRegex(launched, r"\n0 .* 0-2\n1 .* 3-5\n2 .* 6-7\n\nthis host")
        self.assertIn("at most 2 requests and 1024 tokens a rank, 2 micro-batches", launched)
        self.assertEqual(launched.count("KV cache 2.0 MiB a rank"), 1, launched)  # printed by one rank only
        assumed = self.good(run(BINARY, "--dry-run", "--assume-ranks", "3", "--max-num-seqs", "2", "--micro-batches", "2"))
        self.assertEqual(assumed.split("rank  ")[-1], launched.split("rank  ")[-1])

    def test_planned_weights_are_those_that_are_loaded(self):
        model = str(self.model(vocab_size=16384, hidden_size=1024, num_hidden_layers=4))
        common = ("--load-format", "dummy", "--model", model, "--kv-cache-memory", "1M", "--max-num-seqs", "1", "--max-num-batched-tokens", "16")
        plan = self.good(run(BINARY, "--dry-run", *common))
        value, unit = re.search(r"\n0\s+([\d.]+) (\w+)", plan).groups()
        planned = float(value) * UNITS[unit]
        port = free_ports(1)
        daemon = subprocess.Popen([BINARY, "--port", str(port), "--log-level", "info", *common], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  env=daemon_environment())  # fmt: skip
        try:
            for line in daemon.stderr:
                if "serving" in line:
                    break
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT_SECONDS) as answer:
                resident = float(re.search(r"\nprocess_resident_memory_bytes\S* ([\d.e+]+)", answer.read().decode()).group(1))
        finally:
            daemon.terminate()
            daemon.communicate(timeout=LIMIT_SECONDS)
        self.assertGreater(planned, 64 << 20)  # or the process itself would weigh more
        self.assertGreater(resident, planned)
        self.assertLess(resident, 1.5 * planned + (64 << 20))


if __name__ == "__main__":
    unittest.main()
