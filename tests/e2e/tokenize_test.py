#!/usr/bin/env python3
"""Goal    /tokenize and /detokenize agree with each other and with what a completion counts; every served name works, the first is shown.
Method  Two ranks with the embedded model under two names, asked with texts of several scripts."""

import unittest

from group import GroupTest, call

TEXTS = ["And the LORD spake unto Moses, saying,", "naïve 日本語 👩‍👩‍👧", " ", "1234567890\n\n\tx"]


class Tokens(GroupTest):
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
