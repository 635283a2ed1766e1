#!/usr/bin/env python3
"""Goal    Probes, models, version, metrics and errors have their documented form on every rank; wrong requests harm nobody.
Method  Each route once, each kind of wrong request once, then a right one."""

import re
import shutil
import subprocess
import unittest

from group import GroupTest, call, complete, free_ports, wait_for

SHARED_PORT = free_ports(1)
TEXTS = ["And the LORD spake unto Moses, saying,", "naïve 日本語 👩‍👩‍👧", " ", "1234567890\n\n\tx"]


class Routes(GroupTest):
    options = ("--shared-port", str(SHARED_PORT))

    def test_health_and_ready_are_ok_on_both_ranks(self):
        for port in self.group.ports:
            for path in ["/health", "/ready"]:
                self.assertEqual(call(port, "GET", path).status, 200, path)

    def test_models_lists_the_one_that_completions_name(self):
        for port in self.group.ports:
            body = call(port, "GET", "/v1/models").json
            self.assertEqual(body["object"], "list")
            self.assertEqual(len(body["data"]), 1)
            self.assertEqual(body["data"][0]["object"], "model")
            served = body["data"][0]["id"]
            answer = complete(port, model=served, prompt="a", max_tokens=1)
            self.assertEqual(answer.status, 200, answer.text)
            self.assertEqual(answer.json["model"], served)

    def test_version_names_a_version(self):
        self.assertRegex(call(self.group.port, "GET", "/version").json["version"], r"^\d+\.\d+\.\d+")

    def test_metrics_pass_promtool_and_carry_the_rank(self):
        complete(self.group.port, prompt="In the beginning", max_tokens=4)
        self.assertIsNotNone(shutil.which("promtool"), "promtool comes with the Debian package prometheus")
        for rank, port in enumerate(self.group.ports):
            answer = call(port, "GET", "/metrics")
            self.assertEqual(answer.status, 200)
            self.assertTrue(answer.headers["Content-Type"].startswith("text/plain"))
            checked = subprocess.run(["promtool", "check", "metrics"], input=answer.text, capture_output=True, text=True, check=False)
            self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))
            samples = [line for line in answer.text.splitlines() if line.startswith("lockstep_")]
            self.assertTrue(samples)
            self.assertEqual([line for line in samples if f'rank="{rank}"' not in line], [])

    def test_forward_timings_grow_with_every_answer_and_agree_with_the_metrics(self):
        def passes():
            sizes = call(self.group.port, "GET", "/debug/forward_timings").json["batch_sizes"]
            for size in sizes:
                self.assertLessEqual(size["min_ms"], size["p50_ms"])
                self.assertLessEqual(size["p50_ms"], size["p99_ms"])
                self.assertLessEqual(size["p99_ms"], size["max_ms"])
            return {size["batch_size"]: size["count"] for size in sizes}

        self.await_idle()
        before = passes()
        complete(self.group.port, prompt="In the beginning", max_tokens=9, temperature=0, ignore_eos=True)
        # The first token comes with the prompt's pass, the others one by one.
        wait_for(lambda: passes().get(1, 0) >= before.get(1, 0) + 8, "the passes to be counted")
        after = passes()
        text = call(self.group.port, "GET", "/metrics").text
        for size in after:
            self.assertRegex(text, rf'lockstep_forward_duration_seconds_count\{{[^}}]*batch_size="{size}"\}} \d+')

    def test_metrics_count_what_was_generated(self):
        self.await_idle()
        before = self.metric("lockstep_generated_tokens_total")
        tokens = complete(self.group.port, prompt="In the beginning", max_tokens=9, temperature=0).json["usage"]["completion_tokens"]
        self.await_idle()
        self.assertEqual(self.metric("lockstep_generated_tokens_total"), before + tokens)

    def await_idle(self):
        """The last token of an answer is sent before its step is counted."""
        wait_for(lambda: self.metric("lockstep_requests_running") == 0, "the last step to be counted")

    def metric(self, name):
        return float(re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", call(self.group.port, "GET", "/metrics").text, re.MULTILINE).group(1))

    def test_errors_have_openais_form_and_name_the_field(self):
        for fields, status, param in [
            ({}, 400, "prompt"),
            ({"prompt": ""}, 400, "prompt"),
            ({"prompt": ["a", 1]}, 400, "prompt"),
            ({"prompt": [-1]}, 400, "prompt"),
            ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
            ({"prompt": "a", "max_tokens": "many"}, 400, "max_tokens"),
            ({"prompt": "a", "temperature": 2.5}, 400, "temperature"),
            ({"prompt": "a", "top_p": -0.5}, 400, "top_p"),
            ({"prompt": "a", "best_of": 2}, 400, "best_of"),
            ({"prompt": "a", "model": "another"}, 404, "model"),
        ]:
            with self.subTest(fields=fields):
                answer = complete(self.group.port, **fields)
                self.assertEqual(answer.status, status, answer.text)
                error = answer.json["error"]
                self.assertEqual(set(error), {"message", "type", "param", "code"})
                self.assertEqual(error["param"], param)
                self.assertTrue(error["message"] and error["type"] and error["code"])

    def test_a_prompt_beyond_the_context_or_the_vocabulary_is_refused(self):
        for prompt in [[1] * 100000, [2**31 - 1]]:
            answer = complete(self.group.port, prompt=prompt, max_tokens=1)
            self.assertEqual(answer.status, 400, answer.text)
            self.assertTrue(answer.json["error"]["message"])

    def test_a_body_that_is_no_json_is_refused(self):
        for body in ["{", "[]", "\xff", '{"prompt": "a"} x']:
            answer = call(self.group.port, "POST", "/v1/completions", body.encode("latin-1"))
            self.assertEqual(answer.status, 400, answer.text)
            self.assertTrue(answer.json["error"]["message"])

    def test_unknown_routes_and_methods_are_refused(self):
        self.assertEqual(call(self.group.port, "GET", "/nothing/here").status, 404)
        self.assertEqual(call(self.group.port, "GET", "/v1/completions").status, 405)

    def test_the_shared_port_is_served_by_all_ranks(self):
        ranks = set()
        # Each connection is dealt to a rank by its source port: that one of two gets none of 64 is one chance in 2^63, one of four none of 256 one in 2^104.
        for _ in range(16 * self.group.ranks**2):
            ranks.update(re.findall(r'^lockstep_build_info\{.*?rank="(\d+)"', call(SHARED_PORT, "GET", "/metrics").text, re.MULTILINE))
        self.assertEqual(ranks, {str(rank) for rank in range(self.group.ranks)})
        self.assertEqual(complete(SHARED_PORT, prompt="a", max_tokens=1).status, 200)


class Tokens(GroupTest):
    """/tokenize and /detokenize agree with each other and with what a completion counts; every served name works, the first is shown."""

    options = ("--served-model-name", "first", "second")

    def post(self, path, body):
        return call(self.group.port, "POST", path, body)

    def get(self, path):
        return call(self.group.port, "GET", path)

    def test_tokens_are_those_of_a_completion(self):
        for text in TEXTS:
            with self.subTest(text):
                answer = self.post("/tokenize", {"prompt": text, "return_token_strs": True})
                self.assertEqual(answer.status, 200, answer.text)
                tokens = answer.json["tokens"]
                self.assertEqual(answer.json["count"], len(tokens))
                self.assertEqual(len(answer.json["token_strs"]), len(tokens))
                self.assertEqual(answer.json["max_model_len"], 1024)
                self.assertEqual(self.post("/detokenize", {"tokens": tokens}).json, {"prompt": text})
                completion = self.post("/v1/completions", {"prompt": text, "max_tokens": 1})
                self.assertEqual(completion.json["usage"]["prompt_tokens"], len(tokens))

    def test_every_served_name_is_accepted_and_the_first_is_shown(self):
        for name in ("first", "second"):
            answer = self.post("/v1/completions", {"model": name, "prompt": "a", "max_tokens": 1})
            self.assertEqual(answer.status, 200, answer.text)
            self.assertEqual(answer.json["model"], "first")
            self.assertEqual(self.get(f"/v1/models/{name}").json["id"], name)
        self.assertEqual([model["id"] for model in self.get("/v1/models").json["data"]], ["first", "second"])
        self.assertEqual(self.post("/tokenize", {"model": "third", "prompt": "a"}).status, 404)


if __name__ == "__main__":
    unittest.main()
