#!/usr/bin/env python3
"""Goal    Chats are completions of what the model's template makes of them, plain and streamed, on every rank.
Method  The embedded model's template is written out here; a chat must equal the completion of that text."""

import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from group import GroupTest, Stream, call, complete  # noqa: E402

MESSAGES = [{"role": "system", "content": "You know the book of Genesis."}, {"role": "user", "content": "In the beginning"}]


def chat(port, **fields):
    return call(port, "POST", "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 24, "temperature": 0, **fields})


def prompt_of(messages, answer_follows=True):
    """What the embedded model's template makes of them."""
    text = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    return text + ("<|im_start|>assistant\n" if answer_follows else "")


class ChatStream(Stream):
    path = "/v1/chat/completions"


class Chats(GroupTest):
    def test_equal_the_completion_of_the_rendered_conversation_on_both_ranks(self):
        expected = complete(self.group.port, prompt=prompt_of(MESSAGES), max_tokens=24, temperature=0).json
        for port in self.group.ports:
            answer = chat(port)
            self.assertEqual(answer.status, 200, answer.text)
            body = answer.json
            self.assertEqual(body["object"], "chat.completion")
            self.assertTrue(body["id"].startswith("chatcmpl-"))
            message = body["choices"][0]["message"]
            self.assertEqual(message, {"role": "assistant", "content": expected["choices"][0]["text"], "refusal": None})
            self.assertEqual(body["choices"][0]["finish_reason"], expected["choices"][0]["finish_reason"])
            self.assertEqual(body["usage"], expected["usage"], "special tokens of the template are one token each")

    def test_are_the_same_streamed_with_the_role_first(self):
        plain = chat(self.group.port).json
        stream = ChatStream(self.group.ports[-1], messages=MESSAGES, max_tokens=24, temperature=0, stream_options={"include_usage": True})
        events = list(stream)
        stream.close()
        self.assertTrue(stream.done)
        self.assertEqual({event["object"] for event in events}, {"chat.completion.chunk"})
        self.assertEqual(events[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        deltas = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
        self.assertEqual("".join(deltas), plain["choices"][0]["message"]["content"])
        self.assertEqual(events[-2]["choices"][0]["finish_reason"], plain["choices"][0]["finish_reason"])
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"], plain["usage"])

    def test_take_text_in_parts(self):
        parts = [{"type": "text", "text": "In the"}, {"type": "text", "text": "beginning"}]
        by_parts = chat(self.group.port, messages=[{"role": "user", "content": parts}]).json
        by_text = chat(self.group.port, messages=[{"role": "user", "content": "In the\nbeginning"}]).json
        self.assertEqual(by_parts["choices"], by_text["choices"])
        image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
        refused = chat(self.group.port, messages=[{"role": "user", "content": image}])
        self.assertEqual((refused.status, refused.json["error"]["param"]), (400, "messages[0].content[0]"))

    def test_go_on_with_the_last_message_when_asked(self):
        messages = [MESSAGES[1], {"role": "assistant", "content": "God created the"}]
        answer = chat(self.group.port, messages=messages, continue_final_message=True).json
        open_end = prompt_of(messages, answer_follows=False).removesuffix("<|im_end|>\n")
        expected = complete(self.group.port, prompt=open_end, max_tokens=24, temperature=0).json
        self.assertEqual(answer["choices"][0]["message"]["content"], expected["choices"][0]["text"])

    def test_tell_log_probabilities_in_their_own_form(self):
        choice = chat(self.group.port, logprobs=True, top_logprobs=2, max_tokens=8, ignore_eos=True).json["choices"][0]
        tokens = choice["logprobs"]["content"]
        self.assertEqual(len(tokens), 8)
        for token in tokens:
            self.assertEqual(len(token["top_logprobs"]), 2)
            self.assertEqual(token["top_logprobs"][0]["logprob"], token["logprob"])
            self.assertEqual(bytes(token["bytes"]).decode(errors="replace"), token["token"])
        shown = b"".join(bytes(token["bytes"]) for token in tokens if not token["token"].startswith("<|"))
        self.assertEqual(shown.decode(errors="replace"), choice["message"]["content"])

    def test_have_several_choices_and_stop_strings(self):
        body = chat(self.group.port, n=3, temperature=1, seed=11, max_tokens=20, ignore_eos=True).json
        texts = [choice["message"]["content"] for choice in body["choices"]]
        self.assertEqual([choice["index"] for choice in body["choices"]], [0, 1, 2])
        self.assertEqual(len(set(texts)), 3)
        stop = texts[1][4:8]
        again = chat(self.group.port, n=3, temperature=1, seed=11, max_tokens=20, ignore_eos=True, stop=[stop]).json
        self.assertEqual([choice["message"]["content"] for choice in again["choices"]], [text.split(stop)[0] for text in texts])

    def test_may_use_all_of_the_context_when_nothing_bounds_them(self):
        limit = call(self.group.port, "GET", "/v1/models").json["data"][0]["max_model_len"]
        fields = {"messages": [{"role": "user", "content": "Selah."}], "temperature": 0, "ignore_eos": True}
        body = call(self.group.port, "POST", "/v1/chat/completions", fields).json
        self.assertEqual(body["usage"]["total_tokens"], limit)
        self.assertEqual(body["choices"][0]["finish_reason"], "length")

    def test_that_ask_for_tools_are_refused_by_name(self):
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        for fields in ({"tools": tools}, {"response_format": {"type": "json_object"}}, {"messages": []}, {"messages": json.dumps(MESSAGES)}):
            answer = chat(self.group.port, **fields)
            self.assertEqual((answer.status, answer.json["error"]["param"]), (400, next(iter(fields))))


if __name__ == "__main__":
    unittest.main()
