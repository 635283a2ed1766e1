// Goal: every field of a completion is checked for type and range, and what cannot be honoured is refused by name.
// Method: parse_completion_request over tables of bodies.
#include "daemon/api/completion_request.hpp"

#include <string>

#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

std::optional<ApiError> parse(std::string_view body) {
  CompletionRequest ignored;
  return parse_completion_request(body, "tiny", ignored);
}

TEST(CompletionRequest, DefaultsAreOpenAis) {
  CompletionRequest request;
  ASSERT_FALSE(parse_completion_request(R"({"prompt":"a"})", "tiny", request));
  EXPECT_EQ(request.max_tokens, 16);
  EXPECT_EQ(request.sampling.temperature, 1.0F);
  EXPECT_EQ(request.sampling.top_p, 1.0F);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_FALSE(request.seed_given);
  EXPECT_FALSE(request.stream);
}

TEST(CompletionRequest, NullIsAsGoodAsAbsent) {
  EXPECT_FALSE(parse(R"({"prompt":"a","model":null,"max_tokens":null,"temperature":null,"top_p":null,"seed":null,"stream":null,"stop":null,"n":null,)"
                     R"("logprobs":null,"stream_options":null,"logit_bias":null,"suffix":null,"echo":null,"best_of":null,"user":null})"));
}

TEST(CompletionRequest, NeutralValuesOfUnsupportedFieldsAreAccepted) {
  EXPECT_FALSE(parse(R"({"prompt":"a","n":1,"best_of":1,"echo":false,"presence_penalty":0,"frequency_penalty":0.0,"stop":[],"logit_bias":{},"suffix":""})"));
}

TEST(CompletionRequest, BoundaryValuesAreAccepted) {
  EXPECT_FALSE(parse(R"({"prompt":[0,2147483647],"max_tokens":2147483647,"temperature":0,"top_p":1,"top_k":-1,"seed":-9223372036854775808})"));
  EXPECT_FALSE(parse(R"({"prompt":"a","max_tokens":1,"temperature":2.0,"top_p":0.0001,"top_k":2147483647,"seed":18446744073709551615})"));
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
    ::testing::Values(Refusal{"", ""}, Refusal{"{", ""}, Refusal{"[]", ""}, Refusal{"\"a\"", ""}, Refusal{"null", ""}, Refusal{R"({"prompt":"a"} x)", ""},
                      Refusal{"{}", "prompt"}, Refusal{R"({"prompt":null})", "prompt"}, Refusal{R"({"prompt":""})", "prompt"},
                      Refusal{R"({"prompt":[]})", "prompt"}, Refusal{R"({"prompt":5})", "prompt"}, Refusal{R"({"prompt":["a","b"]})", "prompt"},
                      Refusal{R"({"prompt":[[1],[2]]})", "prompt"}, Refusal{R"({"prompt":[1,"a"]})", "prompt"}, Refusal{R"({"prompt":[-1]})", "prompt"},
                      Refusal{R"({"prompt":[1.5]})", "prompt"}, Refusal{R"({"prompt":[2147483648]})", "prompt"},
                      Refusal{R"({"prompt":"a","max_tokens":0})", "max_tokens"}, Refusal{R"({"prompt":"a","max_tokens":-1})", "max_tokens"},
                      Refusal{R"({"prompt":"a","max_tokens":2147483648})", "max_tokens"},
                      Refusal{R"({"prompt":"a","max_tokens":18446744073709551615})", "max_tokens"}, Refusal{R"({"prompt":"a","max_tokens":1.0})", "max_tokens"},
                      Refusal{R"({"prompt":"a","max_tokens":"5"})", "max_tokens"}, Refusal{R"({"prompt":"a","temperature":-0.1})", "temperature"},
                      Refusal{R"({"prompt":"a","temperature":2.1})", "temperature"}, Refusal{R"({"prompt":"a","temperature":1e999})", "temperature"},
                      Refusal{R"({"prompt":"a","temperature":"NaN"})", "temperature"}, Refusal{R"({"prompt":"a","temperature":NaN})", ""},
                      Refusal{R"({"prompt":"a","temperature":true})", "temperature"}, Refusal{R"({"prompt":"a","top_p":0})", "top_p"},
                      Refusal{R"({"prompt":"a","top_p":1e-60})", "top_p"}, Refusal{R"({"prompt":"a","top_p":1.01})", "top_p"},
                      Refusal{R"({"prompt":"a","top_k":-2})", "top_k"}, Refusal{R"({"prompt":"a","top_k":9999999999})", "top_k"},
                      Refusal{R"({"prompt":"a","seed":1.5})", "seed"}, Refusal{R"({"prompt":"a","seed":"1"})", "seed"},
                      Refusal{R"({"prompt":"a","stream":1})", "stream"}, Refusal{R"({"prompt":"a","stream_options":{"include_usage":true}})", "stream_options"},
                      Refusal{R"({"prompt":"a","stream":true,"stream_options":[]})", "stream_options"},
                      Refusal{R"({"prompt":"a","stream":true,"stream_options":{"include_usage":1}})", "stream_options.include_usage"},
                      Refusal{R"({"prompt":"a","stop_token_ids":5})", "stop_token_ids"}, Refusal{R"({"prompt":"a","stop_token_ids":[-1]})", "stop_token_ids"},
                      Refusal{R"({"prompt":"a","model":5})", "model"}, Refusal{R"({"prompt":"a","n":2})", "n"}, Refusal{R"({"prompt":"a","n":16384})", "n"},
                      Refusal{R"({"prompt":"a","best_of":2})", "best_of"}, Refusal{R"({"prompt":"a","echo":true})", "echo"},
                      Refusal{R"({"prompt":"a","logprobs":0})", "logprobs"}, Refusal{R"({"prompt":"a","stop":"x"})", "stop"},
                      Refusal{R"({"prompt":"a","suffix":"x"})", "suffix"}, Refusal{R"({"prompt":"a","presence_penalty":0.5})", "presence_penalty"},
                      Refusal{R"({"prompt":"a","logit_bias":{"1":1}})", "logit_bias"}, Refusal{R"({"prompt":"a","min_p":0.1})", "min_p"},
                      Refusal{R"({"prompt":"a","response_format":{"type":"json_object"}})", "response_format"}));

TEST(CompletionRequest, AnotherModelIsNotFound) {
  const auto error = parse(R"({"prompt":"a","model":"gpt"})");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, 404);
  EXPECT_EQ(error->code, "model_not_found");
}

TEST(CompletionRequest, DeepNestingIsRefusedWithoutRecursion) {
  EXPECT_TRUE(parse(R"({"prompt":"a","x":)" + std::string(1'000'000, '[')));
  const std::string deep = R"({"prompt":"a","x":)" + std::string(20, '[') + std::string(20, ']') + "}";
  EXPECT_TRUE(parse(deep));
}

TEST(CompletionRequest, TooManyStopTokensAreRefused) {
  std::string list = "1";
  for (int i = 0; i < 64; ++i) {
    list += ",1";
  }
  EXPECT_TRUE(parse(R"({"prompt":"a","stop_token_ids":[)" + list + "]}"));
}

TEST(CompletionRequest, ErrorsDoNotEchoTheClientsText) {
  const auto error = parse(R"({"prompt":"a","model":"<script>"})");
  ASSERT_TRUE(error);
  EXPECT_EQ(error_body(*error).find("script"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::daemon
