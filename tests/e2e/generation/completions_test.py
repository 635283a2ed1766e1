#!/usr/bin/env python3
"""Goal    Two ranks that each hold half of the experts answer like the reference implementation, plain and streamed, whichever rank is asked.
Method  Every prompt of the recorded reference on both ranks; then many at once; then a client that leaves."""

import concurrent.futures
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from group import GOLDEN, GroupTest, Stream, call, complete, wait_for  # noqa: E402

CASES = json.loads(GOLDEN.read_text())["cases"]


def expected_start(case):
    """What the reference is sure of, up to the token that ends the text: beyond it, rounding may choose another word."""
    return case["confident_text"].split("<|")[0]


def fields_of(case, **more):
    return {"prompt": case["prompt"], "max_tokens": len(case["greedy_token_ids"]), "temperature": 0, **more}


class Completions(GroupTest):
    def test_begin_like_the_reference_on_both_ranks_and_are_the_same_there(self):
        for case in CASES:
            with self.subTest(prompt=case["prompt"]):
                answers = [complete(port, **fields_of(case)) for port in self.group.ports]
                for answer in answers:
                    self.assertEqual(answer.status, 200, answer.text)
                texts = [answer.json["choices"][0]["text"] for answer in answers]
                self.assertTrue(texts[0].startswith(expected_start(case)), texts[0])
                self.assertEqual(len(set(texts)), 1)

    def test_of_token_ids_equal_those_of_text(self):
        case = CASES[0]
        by_text = complete(self.group.port, **fields_of(case)).json
        by_ids = complete(self.group.port, **{**fields_of(case), "prompt": case["prompt_token_ids"]}).json
        self.assertEqual(by_text["choices"], by_ids["choices"])
        self.assertEqual(by_text["usage"], by_ids["usage"])

    def test_have_the_form_and_the_counts_that_clients_expect(self):
        case = CASES[0]
        body = complete(self.group.port, **fields_of(case)).json
        self.assertEqual(body["object"], "text_completion")
        self.assertTrue(body["id"])
        self.assertGreater(body["created"], 1_600_000_000)
        self.assertEqual(len(body["choices"]), 1)
        self.assertEqual(body["choices"][0]["finish_reason"], "length")
        tokens = len(case["greedy_token_ids"])
        prompt_tokens = len(case["prompt_token_ids"])
        self.assertEqual(body["usage"], {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens})

    def test_end_at_the_models_end_token(self):
        case = next(case for case in CASES if "<|im_end|>" in case["confident_text"])
        choice = complete(self.group.port, **fields_of(case)).json["choices"][0]
        self.assertEqual(choice["finish_reason"], "stop")
        self.assertEqual(choice["text"], expected_start(case))

    def test_are_the_same_streamed(self):
        for case in CASES:
            with self.subTest(prompt=case["prompt"]):
                plain = complete(self.group.ports[0], **fields_of(case)).json["choices"][0]
                stream = Stream(self.group.ports[-1], **fields_of(case))
                self.assertTrue(stream.response.headers["Content-Type"].startswith("text/event-stream"))
                events = list(stream)
                stream.close()
                self.assertTrue(stream.done)
                self.assertEqual("".join(event["choices"][0]["text"] for event in events), plain["text"])
                self.assertEqual(events[-1]["choices"][0]["finish_reason"], plain["finish_reason"])
                self.assertTrue(all(event["choices"][0]["finish_reason"] is None for event in events[:-1]))

    def test_tell_their_usage_at_the_end_of_a_stream_when_asked(self):
        case = CASES[0]
        stream = Stream(self.group.port, **fields_of(case), stream_options={"include_usage": True})
        events = list(stream)
        stream.close()
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"]["completion_tokens"], len(case["greedy_token_ids"]))

    def test_do_not_depend_on_what_else_runs(self):
        alone = {case["prompt"]: complete(self.group.port, **fields_of(case)).json["choices"] for case in CASES}
        with concurrent.futures.ThreadPoolExecutor(len(CASES) * 2) as pool:
            together = [(case, pool.submit(complete, port, **fields_of(case))) for case in CASES for port in self.group.ports]
            for case, answer in together:
                self.assertEqual(answer.result().json["choices"], alone[case["prompt"]], case["prompt"])

    def test_with_a_seed_repeat_on_the_other_rank(self):
        fields = {"prompt": CASES[1]["prompt"], "max_tokens": 32, "temperature": 1.0, "top_p": 0.9, "seed": 7}
        texts = [complete(port, **fields).json["choices"][0]["text"] for port in self.group.ports]
        self.assertEqual(len(set(texts)), 1)
        others = {complete(self.group.port, **{**fields, "seed": seed}).json["choices"][0]["text"] for seed in range(100, 108)}
        self.assertGreater(len(others), 1, "eight seeds, one text: the noise is not used")

    def test_of_several_prompts_and_choices_equal_those_asked_for_alone(self):
        fields = {"max_tokens": 12, "temperature": 1.0, "seed": 3, "ignore_eos": True}
        prompts = [case["prompt"] for case in CASES[:3]]
        together = complete(self.group.port, prompt=prompts, n=2, **fields).json
        texts = [choice["text"] for choice in together["choices"]]
        self.assertEqual([choice["index"] for choice in together["choices"]], list(range(6)))
        self.assertEqual(together["usage"]["completion_tokens"], 6 * 12)
        for index, prompt in enumerate(prompts):
            alone = complete(self.group.ports[-1], prompt=prompt, n=2, **fields).json["choices"]
            self.assertEqual(texts[2 * index : 2 * index + 2], [choice["text"] for choice in alone])
            self.assertEqual(texts[2 * index], complete(self.group.port, prompt=prompt, **fields).json["choices"][0]["text"])
            self.assertNotEqual(texts[2 * index], texts[2 * index + 1], "two seeds, one text")

    def test_end_at_a_stop_string_however_tokens_cut_it(self):
        case = CASES[0]
        whole = complete(self.group.port, **fields_of(case, ignore_eos=True)).json["choices"][0]["text"]
        for begin in range(2, len(whole) - 4, 5):
            stop = whole[begin : begin + 4]
            expected = whole[: whole.index(stop)]
            with self.subTest(stop=stop):
                plain = complete(self.group.port, **fields_of(case, ignore_eos=True, stop=[stop, "\u00e9never"])).json["choices"][0]
                self.assertEqual(plain["text"], expected)
                self.assertEqual(plain["finish_reason"], "stop")
                stream = Stream(self.group.port, **fields_of(case, ignore_eos=True, stop=stop))
                self.assertEqual("".join(event["choices"][0]["text"] for event in stream), expected)
                stream.close()
        included = complete(self.group.port, **fields_of(case, stop=whole[3:6], include_stop_str_in_output=True)).json["choices"][0]
        self.assertTrue(included["text"].endswith(whole[3:6]))

    def test_tell_log_probabilities_that_belong_to_the_text(self):
        case = CASES[0]
        choice = complete(self.group.port, **fields_of(case, logprobs=3, ignore_eos=True)).json["choices"][0]
        logprobs = choice["logprobs"]
        count = len(case["greedy_token_ids"])
        self.assertEqual([len(logprobs[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")], [count] * 4)
        for token, own, likeliest, offset in zip(*(logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")), strict=True):
            self.assertEqual(likeliest[token], own)
            self.assertEqual(own, max(likeliest.values()), "temperature 0 takes the likeliest")
            self.assertLessEqual(own, 0)
            if not token.startswith("bytes:") and not token.startswith("<|"):
                self.assertEqual(choice["text"][offset : offset + len(token)], token)

    def test_obey_bias_penalties_and_min_tokens(self):
        case = next(case for case in CASES if "<|im_end|>" in case["confident_text"])
        ended = complete(self.group.port, **fields_of(case)).json["usage"]["completion_tokens"]
        longer = complete(self.group.port, **fields_of(case, min_tokens=ended + 3, max_tokens=ended + 8)).json["usage"]["completion_tokens"]
        self.assertGreaterEqual(longer, ended + 3)
        token = case["prompt_token_ids"][0]
        biased = complete(self.group.port, prompt=[token], max_tokens=5, temperature=0, logit_bias={str(token): 100}).json["choices"][0]["text"]
        echoed = complete(self.group.port, prompt=[token] * 5, max_tokens=1, temperature=0, echo=True).json["choices"][0]["text"]
        self.assertTrue(echoed.startswith(biased))
        fields = {"prompt": case["prompt"], "max_tokens": 60, "temperature": 0, "ignore_eos": True, "logprobs": 0}
        plain = complete(self.group.port, **fields).json["choices"][0]["logprobs"]["tokens"]
        penalized = complete(self.group.port, **fields, frequency_penalty=2, presence_penalty=2).json["choices"][0]["logprobs"]["tokens"]
        self.assertGreater(len(set(penalized)), len(set(plain)))

    def test_without_max_tokens_take_what_the_context_has_left(self):
        limit = call(self.group.port, "GET", "/v1/models").json["data"][0]["max_model_len"]
        token = CASES[0]["prompt_token_ids"][0]
        answer = complete(self.group.port, prompt=[token] * (limit - 3), temperature=0, ignore_eos=True)
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(answer.json["usage"]["completion_tokens"], 3)

    def test_of_a_client_that_leaves_end_with_it(self):
        stream = Stream(self.group.port, prompt=CASES[0]["prompt"], max_tokens=400, temperature=0, ignore_eos=True)
        next(iter(stream))
        stream.close()
        wait_for(lambda: gauge(self.group.port, "lockstep_requests_running") == 0 and gauge(self.group.port, "lockstep_requests_waiting") == 0,
                 "the request of a client that left to end")  # fmt: skip


def gauge(port, name):
    lines = call(port, "GET", "/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))


if __name__ == "__main__":
    unittest.main()
