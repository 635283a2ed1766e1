// Goal: every field of a completion is checked for type and range, and what cannot be honoured is refused by name.
// Method: read_completion_request over tables of bodies, with a tokenizer whose tokens are bytes.
#include "daemon/api/completions/completion_request.hpp"

#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/support/fakes.hpp"

namespace lockstep::daemon {
namespace {

std::optional<ApiError> parse_with(ApiContext context, std::string_view body, GenerationJob& job) {
  const testing::ByteTokenizer tokenizer;
  context.served_names = {"tiny"};
  context.tokenizer = &tokenizer;
  return read_completion_request(body, context, job);
}

std::optional<ApiError> parse(std::string_view body, GenerationJob& job) {
  return parse_with({}, body, job);
}

std::optional<ApiError> parse(std::string_view body) {
  GenerationJob ignored;
  return parse(body, ignored);
}

TEST(CompletionRequest, DefaultsAreOpenAis) {
  GenerationJob job;
  ASSERT_FALSE(parse(R"({"prompt":"a"})", job));
  EXPECT_FALSE(job.max_tokens);
  EXPECT_EQ(job.default_max_tokens, 16);
  EXPECT_EQ(job.sampling.temperature, 1.0F);
  EXPECT_EQ(job.sampling.top_p, 1.0F);
  EXPECT_EQ(job.sampling.top_k, 0);
  EXPECT_EQ(job.sampling.repetition_penalty, 1.0F);
  EXPECT_EQ(job.sampling.log_probabilities, -1);
  EXPECT_EQ(job.choices_per_prompt, 1);
  EXPECT_TRUE(job.stop_strings.empty());
  EXPECT_TRUE(job.echoes.empty());
  EXPECT_FALSE(job.seed_given);
  EXPECT_FALSE(job.stream);
}

TEST(CompletionRequest, EveryFieldReachesTheJob) {
  GenerationJob job;
  const auto error =
      parse(R"({"prompt":"ab","model":"tiny","max_tokens":7,"min_tokens":3,"n":4,"best_of":4,"temperature":0.5,"top_p":0.25,"top_k":9,"min_p":0.125,)"
            R"("repetition_penalty":1.5,"presence_penalty":-2,"frequency_penalty":2.0,"logit_bias":{"5":-100,"77":1.5},"seed":18446744073709551615,)"
            R"("stop":["x","yz"],"include_stop_str_in_output":true,"stop_token_ids":[1,2],"ignore_eos":true,"stream":true,)"
            R"("stream_options":{"include_usage":true},"logprobs":5,"user":"someone","never_heard_of":{"x":1}})",
            job);
  ASSERT_FALSE(error) << error->message;
  EXPECT_EQ(job.prompts, (std::vector<std::vector<std::int32_t>>{{'a', 'b'}}));
  EXPECT_EQ(job.max_tokens, 7);
  EXPECT_EQ(job.min_tokens, 3);
  EXPECT_EQ(job.choices_per_prompt, 4);
  EXPECT_EQ(job.sampling.temperature, 0.5F);
  EXPECT_EQ(job.sampling.top_p, 0.25F);
  EXPECT_EQ(job.sampling.top_k, 9);
  EXPECT_EQ(job.sampling.min_p, 0.125F);
  EXPECT_EQ(job.sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(job.sampling.presence_penalty, -2.0F);
  EXPECT_EQ(job.sampling.frequency_penalty, 2.0F);
  ASSERT_EQ(job.sampling.logit_bias.size(), 2U);
  EXPECT_EQ(job.sampling.logit_bias[0].token, 5);
  EXPECT_EQ(job.sampling.logit_bias[0].bias, -100.0F);
  EXPECT_EQ(job.sampling.logit_bias[1].token, 77);
  EXPECT_EQ(job.sampling.logit_bias[1].bias, 1.5F);
  EXPECT_EQ(job.sampling.seed, 18446744073709551615ULL);
  EXPECT_TRUE(job.seed_given);
  EXPECT_EQ(job.stop_strings, (std::vector<std::string>{"x", "yz"}));
  EXPECT_TRUE(job.includes_stop_string);
  EXPECT_EQ(job.stop_token_ids, (std::vector<std::int32_t>{1, 2}));
  EXPECT_TRUE(job.ignore_eos);
  EXPECT_TRUE(job.stream);
  EXPECT_TRUE(job.include_usage);
  EXPECT_EQ(job.sampling.log_probabilities, 5);
}

TEST(CompletionRequest, PromptsComeAsTextsAndAsTokenIdsOneOrSeveral) {
  using Prompts = std::vector<std::vector<std::int32_t>>;
  const std::vector<std::pair<std::string, Prompts>> cases{{R"("ab")", {{'a', 'b'}}},
                                                           {"[7,8]", {{7, 8}}},
                                                           {R"(["ab","c"])", {{'a', 'b'}, {'c'}}},
                                                           {"[[1,2],[3]]", {{1, 2}, {3}}},
                                                           {R"(["only"])", {{'o', 'n', 'l', 'y'}}},
                                                           {"[[9]]", {{9}}}};
  for (const auto& [prompt, expected] : cases) {
    GenerationJob job;
    const auto error = parse("{\"prompt\":" + prompt + "}", job);
    EXPECT_FALSE(error) << prompt;
    EXPECT_EQ(job.prompts, expected) << prompt;
  }
}

TEST(CompletionRequest, EchoKeepsEachPromptsText) {
  GenerationJob job;
  ASSERT_FALSE(parse(R"({"prompt":["ab","c"],"echo":true})", job));
  EXPECT_EQ(job.echoes, (std::vector<std::string>{"ab", "c"}));
  GenerationJob ids;
  ASSERT_FALSE(parse(R"({"prompt":[104,105],"echo":true})", ids));
  EXPECT_EQ(ids.echoes, (std::vector<std::string>{"hi"}));
}

TEST(CompletionRequest, EchoWithLogprobsScoresThePromptsInsteadOfKeepingTheirTexts) {
  GenerationJob job;
  ASSERT_FALSE(parse(R"({"prompt":["ab","c"],"echo":true,"logprobs":0})", job));
  EXPECT_TRUE(job.scores_prompts);
  EXPECT_TRUE(job.echoes.empty());
  GenerationJob plain;
  ASSERT_FALSE(parse(R"({"prompt":"ab","logprobs":2})", plain));
  EXPECT_FALSE(plain.scores_prompts);
}

TEST(CompletionRequest, OnlyWithEchoNothingMayBeGenerated) {
  for (const std::string field : {"max_tokens", "max_completion_tokens"}) {
    GenerationJob job;
    ASSERT_FALSE(parse(R"({"prompt":"a","echo":true,")" + field + R"(":0})", job)) << field;
    EXPECT_EQ(job.max_tokens, 0);
    EXPECT_TRUE(parse(R"({"prompt":"a","echo":false,")" + field + R"(":0})")) << field;
  }
}

TEST(CompletionRequest, ATemperatureJustAboveGreedyIsRaisedToTheLeastAndGreedyStays) {
  for (const auto& [temperature, expected] : {std::pair("0", 0.0F), std::pair("0.0", 0.0F), std::pair("1e-9", 0.001F), std::pair("0.0005", 0.001F),
                                              std::pair("0.001", 0.001F), std::pair("0.002", 0.002F)}) {
    GenerationJob job;
    ASSERT_FALSE(parse(std::string(R"({"prompt":"a","temperature":)") + temperature + "}", job)) << temperature;
    EXPECT_EQ(job.sampling.temperature, expected) << temperature;
  }
}

TEST(CompletionRequest, ATopPOfNothingLeavesTheLikeliest) {
  for (const std::string top_p : {"0", "1e-60"}) {
    GenerationJob job;
    ASSERT_FALSE(parse(R"({"prompt":"a","top_p":)" + top_p + "}", job));
    EXPECT_GT(job.sampling.top_p, 0.0F) << "which the engine takes";
    EXPECT_LT(job.sampling.top_p, 1e-30F);
  }
}

TEST(CompletionRequest, TheModelsDefaultsAreOfWhatTheRequestLeavesOut) {
  const ApiContext context{.defaults = {.temperature = 0.25F, .top_p = 0.5F, .top_k = 7, .min_p = 0.125F, .repetition_penalty = 1.5F, .max_new_tokens = 99}};
  GenerationJob job;
  ASSERT_FALSE(parse_with(context, R"({"prompt":"a"})", job));
  EXPECT_EQ(job.sampling.temperature, 0.25F);
  EXPECT_EQ(job.sampling.top_p, 0.5F);
  EXPECT_EQ(job.sampling.top_k, 7);
  EXPECT_EQ(job.sampling.min_p, 0.125F);
  EXPECT_EQ(job.sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(job.default_max_tokens, 16) << "a completion's own";
  GenerationJob given;
  ASSERT_FALSE(parse_with(context, R"({"prompt":"a","temperature":1,"top_p":1,"top_k":-1,"min_p":0,"repetition_penalty":1})", given));
  EXPECT_EQ(given.sampling.temperature, 1.0F);
  EXPECT_EQ(given.sampling.top_p, 1.0F);
  EXPECT_EQ(given.sampling.top_k, 0);
  EXPECT_EQ(given.sampling.min_p, 0.0F);
  EXPECT_EQ(given.sampling.repetition_penalty, 1.0F);
  GenerationJob slight;
  ASSERT_FALSE(parse_with({.defaults = {.temperature = 0.0001F}}, R"({"prompt":"a"})", slight));
  EXPECT_EQ(slight.sampling.temperature, 0.001F);
}

TEST(CompletionRequest, TokensThatTheModelDoesNotHaveAreRefusedByTheFieldThatNamesThem) {
  const ApiContext context{.vocabulary_size = 100};
  for (const auto& [body, field] :
       {std::pair(R"({"prompt":[99,100]})", "prompt"), std::pair(R"({"prompt":[[1],[100]]})", "prompt"),
        std::pair(R"({"prompt":[1],"stop_token_ids":[100]})", "stop_token_ids"), std::pair(R"({"prompt":[1],"logit_bias":{"100":1}})", "logit_bias")}) {
    GenerationJob job;
    const auto error = parse_with(context, body, job);
    ASSERT_TRUE(error) << body;
    EXPECT_EQ(error->param, field);
    EXPECT_NE(error->message.find("from 0 to 99"), std::string::npos) << error->message;
  }
  GenerationJob job;
  EXPECT_FALSE(parse_with(context, R"({"prompt":[0,99],"stop_token_ids":[99],"logit_bias":{"99":1}})", job));
}

TEST(CompletionRequest, WholeNumbersMayBeWrittenWithAPoint) {
  GenerationJob job;
  const auto error = parse(R"({"prompt":[1.0,2],"max_tokens":2.0,"min_tokens":1e0,"n":2.0,"top_k":4e1,"seed":7.0,"logprobs":3.0,"stop_token_ids":[9.0]})", job);
  ASSERT_FALSE(error) << error->message;
  EXPECT_EQ(job.prompts, (std::vector<std::vector<std::int32_t>>{{1, 2}}));
  EXPECT_EQ(job.max_tokens, 2);
  EXPECT_EQ(job.min_tokens, 1);
  EXPECT_EQ(job.choices_per_prompt, 2);
  EXPECT_EQ(job.sampling.top_k, 40);
  EXPECT_EQ(job.sampling.seed, 7U);
  EXPECT_EQ(job.sampling.log_probabilities, 3);
  EXPECT_EQ(job.stop_token_ids, std::vector<std::int32_t>{9});
}

TEST(CompletionRequest, RefusalOfANumberNamesItAndWhatIsExpected) {
  EXPECT_EQ(parse(R"({"prompt":"a","max_tokens":2.5})")->message, "max_tokens must be an integer from 1 to 2147483647, not 2.5");
  EXPECT_EQ(parse(R"({"prompt":"a","top_k":18446744073709551615})")->message, "top_k must be an integer from -1 to 2147483647, not 18446744073709551615");
  EXPECT_EQ(parse(R"({"prompt":"a","n":"2"})")->message, "n must be an integer from 1 to 128, not a string");
  EXPECT_EQ(parse(R"({"prompt":"a","seed":0.5})")->message, "seed must be an integer of at most 64 bits, not 0.5");
}

TEST(CompletionRequest, MaxCompletionTokensIsTheNewerNameAndWins) {
  GenerationJob job;
  ASSERT_FALSE(parse(R"({"prompt":"a","max_completion_tokens":5,"max_tokens":9})", job));
  EXPECT_EQ(job.max_tokens, 5);
}

TEST(CompletionRequest, AStopStringMayComeAlone) {
  GenerationJob job;
  ASSERT_FALSE(parse(R"({"prompt":"a","stop":"\u00e9nd"})", job));
  EXPECT_EQ(job.stop_strings, std::vector<std::string>{"\xc3\xa9nd"});
}

TEST(CompletionRequest, AsManyTextsAsTheLimitAreAcceptedAndNoMore) {
  std::string prompts = R"("a")";
  for (int i = 1; i < 32; ++i) {
    prompts += R"(,"a")";
  }
  EXPECT_FALSE(parse(R"({"n":4,"prompt":[)" + prompts + "]}"));
  const auto error = parse(R"({"n":4,"prompt":[)" + prompts + R"(,"a"]})");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->param, "prompt");
}

TEST(CompletionRequest, NullIsAsGoodAsAbsent) {
  EXPECT_FALSE(parse(R"({"prompt":"a","model":null,"max_tokens":null,"temperature":null,"top_p":null,"seed":null,"stream":null,"stop":null,"n":null,)"
                     R"("logprobs":null,"stream_options":null,"logit_bias":null,"suffix":null,"echo":null,"best_of":null,"user":null})"));
}

TEST(CompletionRequest, NeutralValuesOfUnsupportedFieldsAreAccepted) {
  EXPECT_FALSE(parse(
      R"({"prompt":"a","n":1,"best_of":1,"echo":false,"presence_penalty":0,"frequency_penalty":0.0,"stop":[],"logit_bias":{},"suffix":"","response_format":{"type":"text"},"store":false,)"
      R"("service_tier":"default","stream":true,"stream_options":{"include_obfuscation":false}})"));
}

// A text that was not made as asked is worse than a refusal.
TEST(CompletionRequest, WhatOtherServersKnowIsRefusedByNameUnlessItAsksForNothing) {
  struct Known {
    std::string_view name;
    std::string_view asks;
    std::string_view asks_for_nothing;
  };
  const std::vector<Known> fields{{"length_penalty", "1.5", "1.0"},
                                  {"bad_words", R"(["a"])", "[]"},
                                  {"allowed_token_ids", "[1]", "[]"},
                                  {"use_beam_search", "true", "false"},
                                  {"skip_special_tokens", "false", "true"},
                                  {"spaces_between_special_tokens", "false", "true"},
                                  {"truncate_prompt_tokens", "5", "null"},
                                  {"structured_outputs", R"({"choice":["a"]})", "null"},
                                  {"guided_json", "{}", "null"},
                                  {"guided_regex", R"("a")", "null"},
                                  {"guided_choice", R"(["a"])", "null"},
                                  {"guided_grammar", R"("a")", "null"},
                                  {"return_token_ids", "true", "false"},
                                  {"return_tokens_as_token_ids", "true", "false"},
                                  {"logits_processors", R"(["a"])", "[]"},
                                  {"priority", "1", "0"},
                                  {"detokenize", "false", "true"},
                                  {"thinking_token_budget", "5", "null"},
                                  {"vllm_xargs", R"({"a":1})", "{}"},
                                  {"kv_transfer_params", R"({"a":1})", "{}"},
                                  {"regex", R"("a")", R"("")"},
                                  {"ebnf", R"("a")", R"("")"},
                                  {"n_predict", "5", "null"},
                                  {"grammar", R"("a")", R"("")"},
                                  {"json_schema", R"({"type":"object"})", "{}"},
                                  {"repeat_penalty", "1.1", "1"},
                                  {"typical_p", "0.5", "1.0"},
                                  {"mirostat", "2", "0"},
                                  {"dry_multiplier", "0.8", "0.0"},
                                  {"xtc_probability", "0.5", "0"},
                                  {"dynatemp_range", "0.5", "0"},
                                  {"samplers", R"(["top_k"])", "[]"},
                                  {"n_probs", "3", "0"},
                                  {"t_max_predict_ms", "100", "0"},
                                  {"lora", R"([{"id":0}])", "[]"}};
  for (const Known& field : fields) {
    const auto error = parse(fmt::format(R"({{"prompt":"a","{}":{}}})", field.name, field.asks));
    ASSERT_TRUE(error) << field.name;
    EXPECT_EQ(error->code, "unsupported_value") << field.name;
    EXPECT_EQ(error->param, field.name);
    EXPECT_FALSE(parse(fmt::format(R"({{"prompt":"a","{}":{}}})", field.name, field.asks_for_nothing))) << field.name;
  }
}

TEST(CompletionRequest, BoundaryValuesAreAccepted) {
  EXPECT_FALSE(parse(R"({"prompt":[0,2147483646],"max_tokens":2147483647,"temperature":0,"top_p":1,"top_k":-1,"seed":-9223372036854775808})"));
  EXPECT_FALSE(parse(R"({"prompt":"a","max_tokens":1,"temperature":2.0,"top_p":0,"top_k":2147483647,"seed":18446744073709551615})"));
  EXPECT_FALSE(parse(R"({"prompt":"a","n":128,"min_p":1,"logprobs":20,"repetition_penalty":10,"presence_penalty":-2.0,"min_tokens":0})"));
  EXPECT_FALSE(parse(R"({"prompt":"a","logprobs":0,"stop":")" + std::string(1024, 'x') + R"("})"));
}

struct Refusal {
  const char* body;
  const char* param;
};

class CompletionRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(CompletionRefusal, IsABadRequestThatNamesTheField) {
  const auto error = parse(GetParam().body);
  ASSERT_TRUE(error) << GetParam().body;
  EXPECT_EQ(error->status, 400);
  EXPECT_EQ(error->param.value_or(""), GetParam().param) << error->message;
  EXPECT_FALSE(error->code.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Fields, CompletionRefusal,
    ::testing::Values(
        Refusal{"", ""}, Refusal{"{", ""}, Refusal{"[]", ""}, Refusal{"\"a\"", ""}, Refusal{"null", ""}, Refusal{R"({"prompt":"a"} x)", ""},
        Refusal{"{}", "prompt"}, Refusal{R"({"prompt":null})", "prompt"}, Refusal{R"({"prompt":""})", "prompt"}, Refusal{R"({"prompt":[]})", "prompt"},
        Refusal{R"({"prompt":5})", "prompt"}, Refusal{R"({"prompt":["a",5]})", "prompt"}, Refusal{R"({"prompt":["a",""]})", "prompt"},
        Refusal{R"({"prompt":[[1],[]]})", "prompt"}, Refusal{R"({"prompt":[[1],2]})", "prompt"}, Refusal{R"({"prompt":[["a"]]})", "prompt"},
        Refusal{R"({"prompt":[[[1]]]})", "prompt"}, Refusal{R"({"prompt":[1,"a"]})", "prompt"}, Refusal{R"({"prompt":[-1]})", "prompt"},
        Refusal{R"({"prompt":[1.5]})", "prompt"}, Refusal{R"({"prompt":[2147483648]})", "prompt"}, Refusal{R"({"prompt":"a","max_tokens":0})", "max_tokens"},
        Refusal{R"({"prompt":"a","max_tokens":-1})", "max_tokens"}, Refusal{R"({"prompt":"a","max_tokens":2147483648})", "max_tokens"},
        Refusal{R"({"prompt":"a","max_tokens":18446744073709551615})", "max_tokens"}, Refusal{R"({"prompt":"a","max_tokens":2.5})", "max_tokens"},
        Refusal{R"({"prompt":"a","max_tokens":1e999})", "max_tokens"}, Refusal{R"({"prompt":"a","max_tokens":2147483648.0})", "max_tokens"},
        Refusal{R"({"prompt":"a","max_tokens":1e19})", "max_tokens"}, Refusal{R"({"prompt":"a","max_tokens":0.0})", "max_tokens"},
        Refusal{R"({"prompt":"a","seed":1e19})", "seed"}, Refusal{R"({"prompt":"a","seed":-9223372036854775809})", "seed"},
        Refusal{R"({"prompt":"a","seed":9007199254740993.0})", "seed"}, Refusal{R"({"prompt":"a","max_tokens":"5"})", "max_tokens"},
        Refusal{R"({"prompt":"a","temperature":-0.1})", "temperature"}, Refusal{R"({"prompt":"a","temperature":2.1})", "temperature"},
        Refusal{R"({"prompt":"a","temperature":1e999})", "temperature"}, Refusal{R"({"prompt":"a","temperature":"NaN"})", "temperature"},
        Refusal{R"({"prompt":"a","temperature":NaN})", ""}, Refusal{R"({"prompt":"a","temperature":true})", "temperature"},
        Refusal{R"({"prompt":"a","top_p":-0.1})", "top_p"}, Refusal{R"({"prompt":"a","store":true})", "store"},
        Refusal{R"({"prompt":"a","service_tier":"flex"})", "service_tier"},
        Refusal{R"({"prompt":"a","stream":true,"stream_options":{"include_obfuscation":true}})", "stream_options.include_obfuscation"},
        Refusal{R"({"prompt":"a","echo":true,"max_tokens":-1})", "max_tokens"}, Refusal{R"({"prompt":"a","top_p":1.01})", "top_p"},
        Refusal{R"({"prompt":"a","top_k":-2})", "top_k"}, Refusal{R"({"prompt":"a","top_k":9999999999})", "top_k"},
        Refusal{R"({"prompt":"a","seed":1.5})", "seed"}, Refusal{R"({"prompt":"a","seed":"1"})", "seed"}, Refusal{R"({"prompt":"a","stream":1})", "stream"},
        Refusal{R"({"prompt":"a","stream_options":{"include_usage":true}})", "stream_options"},
        Refusal{R"({"prompt":"a","stream":true,"stream_options":[]})", "stream_options"},
        Refusal{R"({"prompt":"a","stream":true,"stream_options":{"include_usage":1}})", "stream_options.include_usage"},
        Refusal{R"({"prompt":"a","stream":true,"stream_options":{"continuous_usage_stats":true}})", "stream_options.continuous_usage_stats"},
        Refusal{R"({"prompt":"a","stop_token_ids":5})", "stop_token_ids"}, Refusal{R"({"prompt":"a","stop_token_ids":[-1]})", "stop_token_ids"},
        Refusal{R"({"prompt":"a","model":5})", "model"}, Refusal{R"({"prompt":"a","n":0})", "n"}, Refusal{R"({"prompt":"a","n":129})", "n"},
        Refusal{R"({"prompt":"a","n":"2"})", "n"}, Refusal{R"({"prompt":"a","n":16384})", "n"}, Refusal{R"({"prompt":"a","best_of":2})", "best_of"},
        Refusal{R"({"prompt":"a","best_of":1,"n":2})", "best_of"}, Refusal{R"({"prompt":"a","echo":1})", "echo"},
        Refusal{R"({"prompt":"a","logprobs":21})", "logprobs"}, Refusal{R"({"prompt":"a","logprobs":-1})", "logprobs"},
        Refusal{R"({"prompt":"a","logprobs":true})", "logprobs"}, Refusal{R"({"prompt":"a","prompt_logprobs":1})", "prompt_logprobs"},
        Refusal{R"({"prompt":"a","stop":""})", "stop"}, Refusal{R"({"prompt":"a","stop":["x",""]})", "stop"}, Refusal{R"({"prompt":"a","stop":5})", "stop"},
        Refusal{R"({"prompt":"a","stop":[5]})", "stop"},
        Refusal{R"({"prompt":"a","stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]})", "stop"},
        Refusal{R"({"prompt":"a","include_stop_str_in_output":1})", "include_stop_str_in_output"}, Refusal{R"({"prompt":"a","suffix":"x"})", "suffix"},
        Refusal{R"({"prompt":"a","presence_penalty":2.5})", "presence_penalty"}, Refusal{R"({"prompt":"a","frequency_penalty":-2.1})", "frequency_penalty"},
        Refusal{R"({"prompt":"a","repetition_penalty":0})", "repetition_penalty"}, Refusal{R"({"prompt":"a","min_p":1.1})", "min_p"},
        Refusal{R"({"prompt":"a","min_p":-0.1})", "min_p"}, Refusal{R"({"prompt":"a","min_tokens":-1})", "min_tokens"},
        Refusal{R"({"prompt":"a","logit_bias":[]})", "logit_bias"}, Refusal{R"({"prompt":"a","logit_bias":{"a":1}})", "logit_bias"},
        Refusal{R"({"prompt":"a","logit_bias":{"-1":1}})", "logit_bias"}, Refusal{R"({"prompt":"a","logit_bias":{"1":101}})", "logit_bias"},
        Refusal{R"({"prompt":"a","logit_bias":{"4294967297":1}})", "logit_bias"}, Refusal{R"({"prompt":"a","logit_bias":{"1":"x"}})", "logit_bias"},
        Refusal{R"({"prompt":"a","max_completion_tokens":0})", "max_completion_tokens"},
        Refusal{R"({"prompt":"a","skip_special_tokens":false})", "skip_special_tokens"},
        Refusal{R"({"prompt":"a","response_format":{"type":"json_object"}})", "response_format"}));

TEST(CompletionRequest, AnotherModelIsNotFound) {
  const auto error = parse(R"({"prompt":"a","model":"gpt"})");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, 404);
  EXPECT_EQ(error->code, "model_not_found");
}

TEST(CompletionRequest, DeepNestingIsRefusedWithoutRecursion) {
  EXPECT_TRUE(parse(R"({"prompt":"a","x":)" + std::string(1'000'000, '[')));
  const std::string deep = R"({"prompt":"a","x":)" + std::string(40, '[') + std::string(40, ']') + "}";
  EXPECT_TRUE(parse(deep));
}

TEST(CompletionRequest, TooManyStopTokensAreRefused) {
  std::string list = "1";
  for (int i = 0; i < 64; ++i) {
    list += ",1";
  }
  EXPECT_TRUE(parse(R"({"prompt":"a","stop_token_ids":[)" + list + "]}"));
}

TEST(CompletionRequest, WhatIsNotJsonIsRefusedWithItsPlace) {
  for (const auto& [body, place] : std::vector<std::pair<std::string, std::string>>{{R"({"prompt": x})", "after byte 11 of 13"},
                                                                                    {"{\"prompt\": \"ab\xff\"}", "after byte 14 of 17"},
                                                                                    {R"({"prompt": "a"} more)", "after byte 16 of 20"},
                                                                                    {R"({"prompt": "a")", "after byte 14 of 14"},
                                                                                    {"", "after byte 0 of 0"}}) {
    const std::optional<ApiError> error = parse(body);
    ASSERT_TRUE(error) << body;
    EXPECT_EQ(error->code, "malformed_json");
    EXPECT_THAT(error->message, ::testing::HasSubstr(place)) << body;
  }
}

TEST(CompletionRequest, ErrorsDoNotEchoTheClientsText) {
  const auto error = parse(R"({"prompt":"a","model":"<script>"})");
  ASSERT_TRUE(error);
  EXPECT_EQ(error_body(*error).find("script"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::daemon
