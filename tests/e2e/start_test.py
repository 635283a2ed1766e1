#!/usr/bin/env python3
"""Goal    What is wrong with options, environment or files ends the daemon with status 2 and a message that names it, before a port opens.
Method  lockstepd alone and in groups with one thing wrong at a time; ports are chosen by the kernel, so that nothing else can be in the way."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from group import BINARY, LAUNCHER, LIMIT_SECONDS, REPOSITORY, daemon_environment

EMBEDDED = REPOSITORY / "model/embedded"


def run(*command, **variables):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=daemon_environment(**variables), check=False)


class Start(unittest.TestCase):
    def copy_of_the_model(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        shutil.copytree(EMBEDDED, folder / "model")
        return folder / "model"

    def refused(self, done, *words):
        self.assertEqual(done.returncode, 2, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertNotIn("listening", done.stderr)
        self.assertNotIn("terminate called", done.stderr)

    def test_wrong_options_are_named_before_a_port_opens(self):
        for option, value in [
            ("--port", "70000"),
            ("--device", "abacus"),
            ("--max-model-len", "5000"),
            ("--max-num-batched-tokens", "2147483647"),
            ("--kv-cache-memory", "1"),
            ("--group-secret-file", "/nonexistent"),
            ("--peer-bind", "nowhere"),
            ("--model", "/nonexistent"),
            ("--config", "/nonexistent"),
            ("--api-key", "two words"),
            ("--api-key-file", "/nonexistent"),
            ("--tls-cert", "/nonexistent"),
            ("--tls-key", "/nonexistent"),
            ("--metrics-address", "9090"),
            ("--cors-allow-origin", "example.org"),
            ("--allowed-host", "example.org:8000"),
            ("--request-timeout", "0"),
            ("--access-log", "some"),
            ("--unix-socket", "/nonexistent/http.sock"),
        ]:
            with self.subTest(option):
                named = value if option == "--model" else option
                self.refused(run(BINARY, *([] if option == "--port" else ["--port", "0"]), option, value), named)
        self.refused(run(BINARY, "--port", "0", "--max-num-seqs", "2147483647", "--kv-cache-memory", "8388607T"), "--kv-cache-memory")

    def test_wrong_variable_is_named_and_an_unknown_one_warned_of(self):
        self.refused(run(BINARY, LOCKSTEP_PORT="tcp://10.0.0.1:8000"), "LOCKSTEP_PORT", "tcp://10.0.0.1:8000")
        done = run(BINARY, "--port", "0", "--host", "192.0.2.1", LOCKSTEP_MAX_NUM_SEQ="1")  # an address that no machine has
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("LOCKSTEP_MAX_NUM_SEQ", done.stderr)

    def test_ports_of_all_ranks_are_checked_by_each(self):
        done = run(LAUNCHER, "-n", "2", "--", BINARY, "--port", "65535")
        self.refused(done, "[rank 0/2] --port: 65535", "[rank 1/2] --port: 65535")

    def test_damaged_model_is_named_with_its_file(self):
        model = self.copy_of_the_model()
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "hidden_size": -1}))
        self.refused(run(BINARY, "--port", "0", "--model", str(model)), str(model / "config.json"), "hidden_size is -1")
        (model / "config.json").write_text(json.dumps(config))
        with open(model / "model.safetensors", "r+b") as weights:
            weights.truncate(1_000_000)
        self.refused(run(BINARY, "--port", "0", "--model", str(model)), str(model / "model.safetensors"), "truncated")

    def test_ranks_with_other_weights_refuse_each_other(self):
        model = self.copy_of_the_model()
        weights = bytearray((model / "model.safetensors").read_bytes())
        begin = 8 + int.from_bytes(weights[:8], "little")
        weights[begin::2] = bytes(byte ^ 1 for byte in weights[begin::2])  # the least bit of each value: a fine-tuned model
        (model / "model.safetensors").write_bytes(weights)
        command = f'[ "$OMPI_COMM_WORLD_RANK" = 0 ] || set -- --model {model}; exec {BINARY} --port 0 "$@"'
        done = run(LAUNCHER, "-n", "2", "--", "bash", "-c", command, "bash")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("config_hash differs", done.stderr)
        self.assertEqual(done.stderr.count("configuration hash 0x"), 2, done.stderr)
        self.assertNotIn("serving", done.stderr)


if __name__ == "__main__":
    unittest.main()
