#!/usr/bin/env python3
"""Goal    A daemon that cannot serve says why, and its status tells whether a restart helps: 2 for input, before a port opens; 1 for the machine's fault.
Method  One rank with a damaged model, with options that do not fit, and with a model that is larger than the memory that it may have."""

import json
import pathlib
import resource
import shutil
import subprocess
import tempfile
import unittest

from group import BINARY, LIMIT_SECONDS, REPOSITORY, daemon_environment, free_ports

EMBEDDED = REPOSITORY / "model/embedded"
MEMORY_LIMIT = 8 << 30  # of address space, which is less than the model below and more than a daemon takes


class Refusal(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.model = pathlib.Path(folder.name, "model")
        shutil.copytree(EMBEDDED, self.model)

    def run_daemon(self, *options, limit_memory=False):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))

        command = [BINARY, "--port", str(free_ports(1)), "--model", str(self.model), *options]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=daemon_environment(),
                              preexec_fn=limit if limit_memory else None)  # fmt: skip

    def assert_refused_before_listening(self, done, *words):
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertNotIn("listening", done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def change_config(self, **fields):
        path = self.model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    def test_of_truncated_weights_names_the_file(self):
        path = self.model / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])
        self.assert_refused_before_listening(self.run_daemon(), str(path), "truncated")

    def test_of_another_architecture_names_it(self):
        self.change_config(architectures=["LlamaForCausalLM"])
        self.assert_refused_before_listening(self.run_daemon(), "config.json", "LlamaForCausalLM", "Qwen3MoeForCausalLM")

    def test_of_a_missing_tensor_names_it(self):
        self.change_config(num_hidden_layers=20)
        self.assert_refused_before_listening(self.run_daemon(), "model.safetensors", "is missing")

    def test_of_options_that_do_not_fit_names_them(self):
        for name, value in [("--device", "abacus"), ("--max-model-len", "10000000"), ("--kv-cache-memory", "1K")]:
            with self.subTest(option=name):
                self.assert_refused_before_listening(self.run_daemon(name, value), name)

    def test_of_a_model_beyond_the_memory_says_so_and_is_the_machines_fault(self):
        self.change_config(vocab_size=1 << 22, hidden_size=1 << 16)
        done = self.run_daemon("--load-format", "dummy", limit_memory=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"error .*resource_exhausted .*memory")


if __name__ == "__main__":
    unittest.main()
