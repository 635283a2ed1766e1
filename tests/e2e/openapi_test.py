#!/usr/bin/env python3
"""Goal    The API does what its own description says, whatever is sent: no failure of the server, no answer that is not described; nothing is open that should not be; and nothing shows what users sent.
Method  schemathesis, with a fixed seed, over what GET /openapi.json describes; then each operation with no key, a wrong one, and each right one; then requests with a word
        that nobody else uses, which is looked for in all that can be read and in the most talkative log."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from group import HOST, Group, GroupTest, call

SCHEMATHESIS = pathlib.Path(sys.executable).parent / "st"
OPEN = {"/health", "/health/live", "/health/ready", "/ready", "/metrics"}
EXAMPLES = 25  # per operation and phase: about a minute in all
LIMIT_SECONDS = 240

# Not asked for: positive_data_acceptance, as the schema cannot say what fits into the model's context and vocabulary; and negative_data_rejection, as fields that
# nobody documents are ignored.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method,ignored_auth"


def operations(document):
    return [(path, method) for path, item in document["paths"].items() for method in item if method in {"get", "post"}]


class Description(GroupTest):
    options = ("--max-model-len", "64", "--access-log", "off")

    def test_holds_against_what_schemathesis_makes_up(self):
        self.assertTrue(SCHEMATHESIS.exists(), "schemathesis comes with tests/requirements.txt: ./dev test makes its environment")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        url = f"http://{HOST}:{self.group.port}"
        command = [str(SCHEMATHESIS), "run", f"{url}/openapi.json", "--checks", CHECKS, "--seed", "4", "--max-examples", str(EXAMPLES), "--no-color",
                   "--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--request-timeout", "60", "--continue-on-failure"]  # fmt: skip
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-20000:] + done.stderr[-2000:])

    def test_is_the_same_on_every_rank(self):
        documents = [json.loads(call(port, "GET", "/openapi.json").text) for port in self.group.ports]
        self.assertEqual(documents[1:], documents[:1] * (len(documents) - 1))
        self.assertEqual(documents[0]["openapi"], "3.1.0")


class Authentication(unittest.TestCase):
    def test_of_every_operation_asks_for_one_of_the_keys(self):
        group = Group("--api-key", "first-key,second-key", "--access-log", "off", ranks=1)
        self.addCleanup(group.close)
        right = [{"Authorization": "Bearer first-key"}, {"Authorization": "bearer second-key"}]
        wrong = [{}, {"Authorization": "Bearer third-key"}, {"Authorization": "Bearer first-key,second-key"}, {"Authorization": "Basic first-key"},
                 {"Authorization": "Bearer "}, {"Authorization": "first-key"}, {"X-Api-Key": "first-key"}]  # fmt: skip
        self.assertEqual(call(group.port, "GET", "/openapi.json").status, 401)
        document = call(group.port, "GET", "/openapi.json", headers=right[0]).json
        found = operations(document)
        self.assertGreater(len(found), 8)
        for path, method in found:
            target = path.replace("{id}", "any")
            body = "{}" if method == "post" else None
            for headers in wrong:
                with self.subTest(path=path, headers=headers):
                    answer = call(group.port, method.upper(), target, body, {**headers, "Content-Type": "application/json"})
                    if path in OPEN:
                        self.assertEqual(answer.status, 200)
                        continue
                    self.assertEqual(answer.status, 401)
                    self.assertEqual(answer.headers["WWW-Authenticate"], "Bearer")
                    self.assertEqual(answer.json["error"]["code"], "invalid_api_key")
                    self.assertNotIn("first-key", answer.text)
            for headers in right:
                with self.subTest(path=path, headers=headers):
                    self.assertNotEqual(call(group.port, method.upper(), target, body, {**headers, "Content-Type": "application/json"}).status, 401)
        for target in ("/", "/nowhere", "/v1", "/docs", "/debug/trace"):
            self.assertEqual(call(group.port, "GET", target).status, 401, "an unknown path tells nothing either")


class Confidentiality(unittest.TestCase):
    WORD = "Xanthippe"  # in no text of the server's or of the model's own
    KEY = "key-that-nobody-may-read"

    def requests(self):
        chat = [{"role": "user", "content": self.WORD}]
        yield "/v1/completions", {"prompt": self.WORD, "max_tokens": 8, "temperature": 0, "echo": True, "stop": [self.WORD + "!"], "user": self.WORD}, 200
        yield "/v1/chat/completions", {"messages": chat, "max_tokens": 8, "user": self.WORD}, 200
        yield "/tokenize", {"prompt": self.WORD, "return_token_strs": True}, 200
        yield "/v1/embeddings", {"input": self.WORD}, 200
        yield "/v1/completions", {"prompt": self.WORD, "max_tokens": self.WORD}, 400
        yield "/v1/completions", {"prompt": self.WORD * 10_000, "max_tokens": 1}, 400
        yield "/v1/completions", self.WORD, 400
        yield "/v1/completions", {"model": self.WORD, "prompt": "a"}, 404
        yield f"/{self.WORD}?{self.WORD}", {self.WORD: self.WORD}, 404

    def test_what_users_sent_and_got_is_in_no_log_metric_or_report(self):
        group = Group("--api-key", self.KEY, "--log-level", "trace", "--access-log", "all", "--max-model-len", "128", ranks=1)
        self.addCleanup(group.close)
        headers = {"Authorization": f"Bearer {self.KEY}", "Content-Type": "application/json"}
        call(group.port, "GET", "/version", headers={"Authorization": f"Bearer {self.WORD}"})  # a key of another server's
        secrets = [self.KEY, self.WORD, self.WORD[:6]]
        for path, body, status in self.requests():
            answer = call(group.port, "POST", path, body, headers)
            self.assertEqual(answer.status, status, answer.text)
            if path == "/v1/completions" and status == 200:
                secrets.append(answer.json["choices"][0]["text"].removeprefix(self.WORD))
        self.assertGreater(len(secrets[-1]), 8, "a text of some length")
        document = call(group.port, "GET", "/openapi.json", headers=headers).json
        readable = [path for path, method in operations(document) if method == "get" and "{" not in path]
        self.assertTrue({"/metrics", "/health", "/ready", "/debug/trace", "/v1/models"} <= set(readable), readable)
        shown = {path: call(group.port, "GET", path, headers=headers) for path in readable}
        group.drain()
        self.assertEqual(group.wait(), 0)
        self.assertGreater(group.log().count(" trace [rank"), 0, "the log tells all it can")
        for name, text in {"log": group.log(), **{path: answer.text for path, answer in shown.items()}}.items():
            for secret in secrets:
                self.assertNotIn(secret, text, name)
        self.assertEqual({answer.status for answer in shown.values()}, {200})


if __name__ == "__main__":
    unittest.main()
