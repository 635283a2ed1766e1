#!/usr/bin/env python3
"""Goal    POST /v1/embeddings gives each text its vector: of length 1, the same on every rank, alone and among others, as numbers and as base64.
Method  A group of two ranks with the embedded model, asked over HTTP while it generates; each documented refusal once."""

import base64
import pathlib
import struct
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from group import GroupTest, call, complete  # noqa: E402

TEXTS = ["In the beginning", "a", "The quick brown fox jumps over the lazy dog. " * 8]


def embed(port, **fields):
    return call(port, "POST", "/v1/embeddings", fields)


def vectors(answer):
    assert answer.status == 200, answer.text
    data = answer.json["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    return [entry["embedding"] for entry in data]


def from_base64(text):
    raw = base64.b64decode(text)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def as_float32(values):
    return list(struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}f", *values)))


class Embeddings(GroupTest):
    options = ("--micro-batches", "2", "--max-num-batched-tokens", "48")

    def test_one_text_has_one_vector_of_length_one_on_every_rank(self):
        found = [[vectors(embed(port, input=text))[0] for port in self.group.ports] for text in TEXTS]
        for first, *others in found:
            self.assertEqual(others, [first] * len(others))
            self.assertAlmostEqual(sum(value * value for value in first), 1.0, places=5)
        self.assertNotEqual(found[0], found[1])

    def test_several_texts_in_one_call_while_others_are_answered_have_the_same_bits(self):
        alone = [vectors(embed(self.group.port, input=text))[0] for text in TEXTS]
        answers = []
        threads = [threading.Thread(target=lambda: complete(self.group.port, prompt="In the", max_tokens=40, ignore_eos=True))]
        threads += [threading.Thread(target=lambda port=port: answers.append(embed(port, input=TEXTS))) for port in list(self.group.ports) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 3 * self.group.ranks)
        for answer in answers:
            self.assertEqual(vectors(answer), alone)

    def test_usage_counts_the_tokens_of_all_texts(self):
        usage = embed(self.group.port, input=[[5, 6, 7], [8]]).json["usage"]
        self.assertEqual(usage, {"prompt_tokens": 4, "total_tokens": 4})

    def test_base64_holds_the_same_floats_as_the_numbers(self):
        numbers = vectors(embed(self.group.port, input=TEXTS))
        packed = vectors(embed(self.group.port, input=TEXTS, encoding_format="base64", user="someone"))
        self.assertEqual([from_base64(text) for text in packed], [as_float32(values) for values in numbers])

    def test_a_long_body_is_answered_too(self):
        text = " ".join(["word"] * 2000)
        answer = embed(self.group.port, input=text)
        self.assertEqual(answer.status, 400, "beyond the context of 1024 tokens")
        self.assertIn("1024", answer.json["error"]["message"])
        self.assertEqual((answer.json["error"]["code"], answer.json["error"]["param"]), ("context_length_exceeded", "input"))
        self.assertEqual(len(vectors(embed(self.group.port, input=["some words " * 40] * 12))), 12)

    def test_what_cannot_be_honoured_is_refused_by_name(self):
        for fields, status, param in [
            ({}, 400, "input"),
            ({"input": ""}, 400, "input"),
            ({"input": ["a", 1]}, 400, "input"),
            ({"input": "a", "dimensions": 3}, 400, "dimensions"),
            ({"input": "a", "encoding_format": "ubinary"}, 400, "encoding_format"),
            ({"input": "a", "model": "another"}, 404, "model"),
        ]:
            with self.subTest(fields=fields):
                answer = embed(self.group.port, **fields)
                self.assertEqual(answer.status, status, answer.text)
                self.assertEqual(answer.json["error"]["param"], param)


class MeanPooling(GroupTest):
    options = ("--embedding-pooling", "mean", "--micro-batches", "auto")

    def test_the_mean_is_another_vector_but_for_one_token(self):
        one, several = vectors(embed(self.group.port, input=[[5], [5, 6, 7]]))
        self.assertAlmostEqual(sum(value * value for value in several), 1.0, places=5)
        self.assertNotEqual(one, several)
        self.assertEqual(vectors(embed(self.group.ports[-1], input=[[5, 6, 7]]))[0], several)


if __name__ == "__main__":
    unittest.main(verbosity=2)
