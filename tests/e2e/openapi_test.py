#!/usr/bin/env python3
"""Goal    The API does what its own description says, whatever is sent: no failure of the server, no answer that is not described; and nothing is open that should not be.
Method  schemathesis, with a fixed seed, over what GET /openapi.json describes; then each operation with no key, a wrong one, and each right one."""

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
        self.assertEqual(documents[0], documents[1])
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


if __name__ == "__main__":
    unittest.main()
