#!/usr/bin/env python3
"""Goal    Each parameter of docs/api.md does through the official client what it says, for completions and chat, plain, streamed, and asynchronous.
Method  Two ranks; each case asks both forms of client and compares with what the same request gives without the parameter, or on the other rank."""

import asyncio
import math
import pathlib
import unittest

import openai
from client import MODEL, GroupTest, asynchronous, call, synchronous
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

PROMPT = "In the beginning God created"
MESSAGES = [{"role": "user", "content": "Who created the heaven?"}]
SEEDED = {"temperature": 0.9, "seed": 11}

API_PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "api.md"

# What the client's types have and the server does not serve: every other parameter is a property of the request's schema in /openapi.json.
IGNORED = {
    "user": "u",
    "metadata": {"a": "b"},
    "parallel_tool_calls": True,
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
}
REFUSED = {
    "audio": {"voice": "a", "format": "wav"},
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "response_format": {"type": "json_object"},
    "service_tier": "flex",
    "store": True,
    "suffix": "x",
    "tool_choice": "required",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "verbosity": "low",
    "web_search_options": {},
}


def text_of(chunks):
    return "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def chat_text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


class Parameters(GroupTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client, cls.other = (synchronous(cls.group.ports[index]) for index in (0, -1))

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.other.close()
        super().tearDownClass()

    def complete(self, client=None, extra=None, **fields):
        return (client or self.client).completions.create(**{"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, **fields}, extra_body=extra)

    def text(self, **fields):
        return self.complete(**fields).choices[0].text

    def chat(self, client=None, extra=None, **fields):
        return (client or self.client).chat.completions.create(**{"model": MODEL, "messages": MESSAGES, "max_tokens": 12, "temperature": 0, **fields}, extra_body=extra)

    def chat_text(self, **fields):
        return self.chat(**fields).choices[0].message.content

    def refusal(self, ask, **fields):
        with self.assertRaises(openai.BadRequestError) as caught:
            ask(**fields)
        return caught.exception.body

    # Both routes

    def test_a_seed_gives_the_same_text_on_both_ranks_and_another_seed_another_text(self):
        for ask in (self.text, self.chat_text):
            with self.subTest(ask=ask.__name__):
                self.assertEqual(ask(**SEEDED), ask(**SEEDED, client=self.other))
                self.assertGreater(len({ask(temperature=1.5, seed=seed) for seed in range(6)}), 1)

    def test_top_k_1_and_a_tiny_top_p_and_min_p_1_all_take_the_likeliest(self):
        for ask in (self.text, self.chat_text):
            greedy = ask()
            for fields in ({"extra": {"top_k": 1}}, {"top_p": 1e-6}, {"extra": {"min_p": 1}}):
                with self.subTest(ask=ask.__name__, fields=fields):
                    self.assertEqual(ask(temperature=1.3, seed=3, **fields), greedy)

    def test_penalties_change_what_repeats(self):
        repeats = {"prompt": "and and and and and and and and", "max_tokens": 32}
        plain = self.text(**repeats)
        for fields in ({"presence_penalty": 2}, {"frequency_penalty": 2}, {"extra": {"repetition_penalty": 8}}):
            with self.subTest(fields=fields):
                self.assertNotEqual(self.text(**repeats, **fields), plain)

    def test_logit_bias_forces_and_forbids_a_token(self):
        chosen = self.text(max_tokens=1)
        likeliest = self.ids(PROMPT + chosen)[-1]
        self.assertNotEqual(self.text(max_tokens=1, logit_bias={str(likeliest): -100}), chosen)
        forced = self.ids("the LORD")[-1]
        shown = self.client.post("/../detokenize", body={"tokens": [forced]}, cast_to=object)["prompt"]
        self.assertEqual(self.text(max_tokens=3, logit_bias={str(forced): 100}), shown * 3)
        self.assertEqual(self.chat_text(max_tokens=3, logit_bias={str(forced): 100}), shown * 3)

    def ids(self, text):
        return self.client.post("/../tokenize", body={"prompt": text}, cast_to=object)["tokens"]

    def test_n_gives_so_many_texts_of_which_the_first_is_that_of_one(self):
        for ask, text in ((self.complete, lambda choice: choice.text), (self.chat, lambda choice: choice.message.content)):
            alone = ask(**SEEDED)
            several = ask(n=4, **SEEDED)
            self.assertEqual([choice.index for choice in several.choices], [0, 1, 2, 3])
            self.assertEqual(text(several.choices[0]), text(alone.choices[0]))
            self.assertGreater(len({text(choice) for choice in several.choices}), 1)
            self.assertEqual(several.usage.prompt_tokens, alone.usage.prompt_tokens)
            self.assertGreater(several.usage.completion_tokens, alone.usage.completion_tokens)

    def test_a_stop_string_across_tokens_ends_the_text_before_it(self):
        whole = self.text(max_tokens=24)
        stop = whole[5:12]  # begins and ends inside of words
        cut = self.complete(max_tokens=24, stop=stop)
        self.assertEqual(cut.choices[0].text, whole[: whole.index(stop)])
        self.assertEqual(cut.choices[0].finish_reason, "stop")
        self.assertEqual(self.text(max_tokens=24, stop=["never there", stop], extra={"include_stop_str_in_output": True}), whole[: whole.index(stop) + len(stop)])
        streamed = text_of(self.complete(max_tokens=24, stop=stop, stream=True))
        self.assertEqual(streamed, cut.choices[0].text)
        chat = self.chat_text(max_tokens=24)
        self.assertEqual(self.chat_text(max_tokens=24, stop=chat[4:9]), chat[: chat.index(chat[4:9])])

    def test_a_stop_token_ends_the_text_unless_min_tokens_forbids_it_yet(self):
        tokens = self.ids(PROMPT + self.text())
        prompt_tokens = self.complete(max_tokens=1).usage.prompt_tokens
        stop = tokens[prompt_tokens + 3]
        stopped = self.complete(extra={"stop_token_ids": [stop]})
        self.assertEqual(stopped.choices[0].finish_reason, "stop")
        self.assertLessEqual(stopped.usage.completion_tokens, 4)
        longer = self.complete(extra={"stop_token_ids": [stop], "min_tokens": 10})
        self.assertGreaterEqual(longer.usage.completion_tokens, 10)

    def test_max_tokens_and_max_completion_tokens_end_the_text_and_ignore_eos_goes_on(self):
        for fields in ({"max_tokens": 5}, {"max_completion_tokens": 5, "max_tokens": 9}):
            answer = self.chat(**fields, extra={"ignore_eos": True})
            self.assertEqual((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("length", 5))
        ended = self.chat(max_tokens=400)
        self.assertEqual(ended.choices[0].finish_reason, "stop")
        going_on = self.chat(max_tokens=ended.usage.completion_tokens + 20, extra={"ignore_eos": True})
        self.assertEqual((going_on.choices[0].finish_reason, going_on.usage.completion_tokens), ("length", ended.usage.completion_tokens + 20))

    # Completions only

    def test_prompts_are_texts_lists_of_texts_ids_and_lists_of_ids(self):
        texts = [PROMPT, "And Moses said unto"]
        ids = [self.ids(text) for text in texts]
        alone = [self.text(prompt=text) for text in texts]
        self.assertEqual([choice.text for choice in self.complete(prompt=texts).choices], alone)
        self.assertEqual(self.text(prompt=ids[0]), alone[0])
        self.assertEqual([choice.text for choice in self.complete(prompt=ids).choices], alone)
        self.assertEqual([choice.index for choice in self.complete(prompt=texts, n=2, **SEEDED).choices], [0, 1, 2, 3])

    def test_echo_puts_the_prompt_before_the_text(self):
        self.assertEqual(self.text(echo=True), PROMPT + self.text())

    def test_logprobs_name_the_chosen_token_among_the_likeliest(self):
        for streamed in (False, True):
            answer = self.complete(logprobs=3, stream=streamed, max_tokens=4)
            parts = [chunk.choices[0].logprobs for chunk in answer if chunk.choices and chunk.choices[0].logprobs] if streamed else [answer.choices[0].logprobs]
            tokens = [token for part in parts for token in part.tokens]
            chosen = [value for part in parts for value in part.token_logprobs]
            top = [among for part in parts for among in part.top_logprobs]
            offsets = [offset for part in parts for offset in part.text_offset]
            self.assertEqual("".join(tokens), self.text(max_tokens=4))
            self.assertEqual(len(chosen), 4)
            for token, value, among in zip(tokens, chosen, top, strict=True):
                self.assertLessEqual(value, 0)
                self.assertAlmostEqual(among[token], value, places=5)
                self.assertEqual(max(among.values()), among[token])  # greedy
                self.assertLessEqual(sum(math.exp(other) for other in among.values()), 1.0001)
            self.assertEqual(offsets, [len("".join(tokens[:i])) for i in range(len(tokens))])

    def test_best_of_is_refused_by_name_unless_it_is_n(self):
        self.assertEqual(self.refusal(self.complete, best_of=3)["param"], "best_of")
        self.assertEqual(len(self.complete(best_of=2, n=2, **SEEDED).choices), 2)

    def test_echo_with_logprobs_scores_the_prompt_as_if_it_had_been_generated(self):
        prompt = "And the LORD spake unto Moses, saying,"
        generated = self.complete(prompt=prompt, logprobs=2, max_tokens=8).choices[0]
        whole = self.ids(prompt) + self.ids_of(generated.logprobs.tokens)
        for fields in ({"max_tokens": 0}, {"max_tokens": 2}, {"max_tokens": 2, "stream": True}):
            with self.subTest(fields=fields):
                answer = self.complete(client=self.other, prompt=whole, echo=True, logprobs=2, **fields)
                parts = [chunk.choices[0] for chunk in answer if chunk.choices] if "stream" in fields else [answer.choices[0]]
                chosen = [value for part in parts if part.logprobs for value in part.logprobs.token_logprobs]
                top = [among for part in parts if part.logprobs for among in part.logprobs.top_logprobs]
                self.assertEqual(len(chosen), len(whole) + fields["max_tokens"])
                self.assertIsNone(chosen[0])
                self.assertIsNone(top[0])
                first = len(whole) - 8
                self.assertEqual(chosen[first : first + 8], generated.logprobs.token_logprobs)
                self.assertEqual(top[first : first + 8], generated.logprobs.top_logprobs)
                self.assertTrue("".join(part.text for part in parts).startswith(prompt + generated.text))
                self.assertEqual(parts[-1].finish_reason, "length")

    def ids_of(self, tokens):
        """Ids of tokens that are whole characters."""
        return [entry for token in tokens for entry in self.ids(token)]

    def test_an_echo_of_nothing_more_is_the_prompt(self):
        answer = self.complete(echo=True, max_tokens=0)
        self.assertEqual((answer.choices[0].text, answer.usage.completion_tokens), (PROMPT, 0))
        self.assertEqual(self.refusal(self.complete, max_tokens=0)["param"], "max_tokens")

    # Chat only

    def test_an_answer_without_text_may_stand_in_the_conversation(self):
        for content in ({}, {"content": None}, {"content": []}):
            with self.subTest(content=content):
                self.chat(messages=[*MESSAGES, {"role": "assistant", **content}, {"role": "user", "content": "Go on."}])

    def test_what_newer_clients_send_without_asking_for_anything_is_accepted(self):
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        fields = {"store": False, "metadata": {"a": "b"}, "service_tier": "auto", "user": "u", "parallel_tool_calls": False, "tools": tools, "tool_choice": "none",
                  "modalities": ["text"], "prediction": {"type": "content", "content": "x"}, "response_format": {"type": "text"}, "verbosity": "medium"}  # fmt: skip
        self.assertEqual(self.chat_text(**fields), self.chat_text())
        self.assertEqual(self.text(extra={"response_format": {"type": "text"}}), self.text())

    def test_chat_logprobs_have_text_bytes_and_the_likeliest(self):
        content = self.chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
        self.assertEqual(b"".join(bytes(entry.bytes) for entry in content).decode(), "".join(entry.token for entry in content))
        for entry in content:
            self.assertEqual(len(entry.top_logprobs), 2)
            self.assertEqual(entry.top_logprobs[0].token, entry.token)
            self.assertGreaterEqual(entry.top_logprobs[0].logprob, entry.top_logprobs[1].logprob)

    def test_chat_content_may_be_text_parts_and_only_those(self):
        parts = [{"role": "user", "content": [{"type": "text", "text": MESSAGES[0]["content"]}]}]
        self.assertEqual(self.chat_text(messages=parts), self.chat_text())
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        self.assertIn("\"text\" only", self.refusal(self.chat, messages=image)["message"])

    def test_chat_remembers_earlier_turns(self):
        turns = [*MESSAGES, {"role": "assistant", "content": "God."}, {"role": "user", "content": "And who was Moses?"}]
        self.assertGreater(self.chat(messages=turns).usage.prompt_tokens, self.chat().usage.prompt_tokens)

    # Every parameter that the client has a type for

    def schema(self, path):
        document = call(self.group.port, "GET", "/openapi.json").json
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return document["components"]["schemas"][content["$ref"].rsplit("/", 1)[1]]["properties"] if "$ref" in content else content["properties"]

    def test_each_parameter_of_the_client_is_served_or_ignored_or_refused_as_the_page_says(self):
        page = API_PAGE.read_text(encoding="utf-8")
        for path, types, ask in (
            ("/v1/completions", completion_create_params.CompletionCreateParamsBase, self.complete),
            ("/v1/chat/completions", chat_create_params.CompletionCreateParamsBase, self.chat),
            ("/v1/embeddings", embedding_create_params.EmbeddingCreateParams, None),
        ):
            served = self.schema(path)
            for name in types.__annotations__:
                with self.subTest(path=path, name=name):
                    self.assertTrue(f"`{name}`" in page, "docs/api.md does not name it")
                    if name in REFUSED and ask:
                        self.assertEqual(self.refusal(ask, extra={name: REFUSED[name]})["param"], name)
                    elif name in IGNORED and ask:
                        self.assertEqual(ask(extra={name: IGNORED[name]}).choices[0].to_dict(), ask().choices[0].to_dict())
                    else:
                        self.assertIn(name, served)

    # Streams, asynchronous, other routes

    def test_streams_add_up_to_the_whole_text_and_end_with_usage_where_asked(self):
        chunks = list(self.complete(stream=True, stream_options={"include_usage": True}, **SEEDED))
        whole = self.complete(**SEEDED)
        self.assertEqual(text_of(chunks), whole.choices[0].text)
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.total_tokens), ([], whole.usage.total_tokens))
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}, **SEEDED))
        whole = self.chat(**SEEDED)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual(chat_text_of(chunks), whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.total_tokens, whole.usage.total_tokens)
        self.assertEqual([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], whole.choices[0].finish_reason)
        self.assertFalse(any(chunk.usage for chunk in self.complete(stream=True)))

    def test_the_asynchronous_client_gets_the_same(self):
        async def ask():
            async with asynchronous(self.group.port) as client:
                fields = {"model": MODEL, "max_tokens": 12, **SEEDED}
                whole = await client.completions.create(prompt=PROMPT, **fields)
                chat = await client.chat.completions.create(messages=MESSAGES, **fields)
                stream = [chunk async for chunk in await client.completions.create(prompt=PROMPT, stream=True, **fields)]
                chat_stream = [chunk async for chunk in await client.chat.completions.create(messages=MESSAGES, stream=True, **fields)]
                return whole.choices[0].text, text_of(stream), chat.choices[0].message.content, chat_text_of(chat_stream)

        text, chat = self.text(**SEEDED), self.chat_text(**SEEDED)
        self.assertEqual(asyncio.run(ask()), (text, text, chat, chat))

    def test_models_are_listed_and_retrieved_and_others_are_not_found(self):
        self.assertEqual([model.id for model in self.client.models.list()], [MODEL])
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")
        with self.assertRaises(openai.NotFoundError):
            self.complete(model="other")

    def test_a_temperature_just_above_0_is_as_good_as_greedy(self):
        for ask in (self.text, self.chat_text):
            self.assertEqual(ask(temperature=1e-5, seed=1), ask())

    def test_values_that_only_the_model_can_refuse_are_refused_by_name_too(self):
        for name, value in (("logit_bias", {"4096": 1}), ("stop_token_ids", [4096]), ("min_tokens", 13), ("store", True)):
            for ask in (self.complete, self.chat):
                with self.subTest(name=name, ask=ask.__name__):
                    self.assertEqual(self.refusal(ask, extra={name: value})["param"], name)
        self.assertEqual(self.refusal(self.complete, prompt=[4096])["param"], "prompt")
        self.assertEqual(self.refusal(self.complete, max_tokens=5000)["param"], "prompt")
        self.assertEqual(self.refusal(self.chat, max_tokens=5000)["param"], "messages")

    def test_bad_values_are_refused_by_name(self):
        for name, value in (("temperature", 3), ("top_p", -1), ("n", 0), ("max_tokens", 0), ("presence_penalty", 3), ("frequency_penalty", -3), ("seed", 2**70)):
            for ask in (self.complete, self.chat):
                with self.subTest(name=name, ask=ask.__name__):
                    self.assertEqual(self.refusal(ask, **{name: value})["param"], name)


if __name__ == "__main__":
    unittest.main()
