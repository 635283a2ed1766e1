// Goal    Every field of a request is checked at both ends of its range, and the message names the value and what was expected.
// Method  One good request; one field at a time is changed, to the last good value and to the first bad one.
#include "scheduler/engine/request_checks.hpp"

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::scheduler {
namespace {

using ::testing::HasSubstr;

constexpr RequestLimits kLimits{.vocabulary_size = 100, .max_model_len = 32, .kv_cache_tokens = 64};

GenerationRequest good_request() {
  GenerationRequest request;
  request.prompt_token_ids = {0, 99, 5};
  request.max_tokens = 29;  // with the prompt exactly the context
  return request;
}

void expect_refused(const GenerationRequest& request, const RequestLimits& limits, const std::vector<std::string>& words) {
  const Status status = check_request(request, limits);
  ASSERT_FALSE(status) << words.front();
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  for (const std::string& word : words) {
    EXPECT_THAT(status.error().message, HasSubstr(word));
  }
}

TEST(RequestChecks, AcceptsARequestThatFillsTheContext) {
  EXPECT_TRUE(check_request(good_request(), kLimits));
}

TEST(RequestChecks, RefusesAnEmptyPrompt) {
  GenerationRequest request = good_request();
  request.prompt_token_ids.clear();
  expect_refused(request, kLimits, {"no tokens"});
}

TEST(RequestChecks, RefusesLessThanOneTokenToGenerate) {
  for (const std::int32_t tokens : {0, -1, std::numeric_limits<std::int32_t>::min()}) {
    GenerationRequest request = good_request();
    request.max_tokens = tokens;
    expect_refused(request, kLimits, {"max_tokens is " + std::to_string(tokens)});
  }
}

TEST(RequestChecks, RefusesOneTokenMoreThanTheContextHolds) {
  GenerationRequest request = good_request();
  request.max_tokens = 30;
  expect_refused(request, kLimits, {"3 prompt tokens", "30", "33", "32"});
}

TEST(RequestChecks, RefusesTheLargestMaxTokensWithoutOverflow) {
  GenerationRequest request = good_request();
  request.max_tokens = std::numeric_limits<std::int32_t>::max();
  expect_refused(request, kLimits, {"2147483650"});
}

TEST(RequestChecks, RefusesWhatTheWholeKvCacheCannotHold) {
  expect_refused(good_request(), {.vocabulary_size = 100, .max_model_len = 32, .kv_cache_tokens = 31}, {"KV cache holds 31", "--kv-cache-memory"});
  EXPECT_TRUE(check_request(good_request(), {.vocabulary_size = 100, .max_model_len = 32, .kv_cache_tokens = 32}));
}

TEST(RequestChecks, RefusesATokenOutsideTheVocabularyAndNamesItsPlace) {
  for (const std::int32_t token : {-1, 100, std::numeric_limits<std::int32_t>::max()}) {
    GenerationRequest request = good_request();
    request.prompt_token_ids[1] = token;
    expect_refused(request, kLimits, {"prompt token 1 is " + std::to_string(token), "0 to 99"});
  }
}

TEST(RequestChecks, RefusesStopTokensAndBiasesOutsideTheVocabulary) {
  GenerationRequest request = good_request();
  request.stop_token_ids = {5, 100};
  expect_refused(request, kLimits, {"stop token 1 is 100", "0 to 99"});
  request = good_request();
  for (const model::LogitBias& bias :
       {model::LogitBias{-1, 0.0F}, model::LogitBias{100, 0.0F}, model::LogitBias{5, 100.5F}, model::LogitBias{5, std::numeric_limits<float>::quiet_NaN()}}) {
    request.sampling.logit_bias = {bias};
    expect_refused(request, kLimits, {"logit_bias", std::to_string(bias.token)});
  }
  request.sampling.logit_bias.assign(kLogitBiasesMax + 1, {5, 0.0F});
  expect_refused(request, kLimits, {"at most 1024"});
}

TEST(RequestChecks, RefusesMoreLikelyTokensThanComeWithOne) {
  for (const std::int32_t count : {-2, 21}) {
    GenerationRequest request = good_request();
    request.sampling.log_probabilities = count;
    expect_refused(request, kLimits, {std::to_string(count), "to 20"});
  }
}

TEST(RequestChecks, RefusesMoreMinTokensThanMaxTokens) {
  GenerationRequest request = good_request();
  request.min_tokens = request.max_tokens;
  EXPECT_TRUE(check_request(request, kLimits));
  request.min_tokens = request.max_tokens + 1;
  expect_refused(request, kLimits, {"min_tokens"});
  request.min_tokens = -1;
  expect_refused(request, kLimits, {"min_tokens is -1"});
}

TEST(RequestChecks, AcceptsTheEndsOfEverySamplingRange) {
  for (const SamplingParams& sampling :
       {SamplingParams{.temperature = 0.0F}, SamplingParams{.temperature = 2.0F}, SamplingParams{.temperature = 1e-3F}, SamplingParams{.top_k = 0},
        SamplingParams{.top_k = std::numeric_limits<std::int32_t>::max()}, SamplingParams{.top_p = 1.0F}, SamplingParams{.top_p = 1e-30F},
        SamplingParams{.min_p = 1.0F}, SamplingParams{.repetition_penalty = 10.0F}, SamplingParams{.presence_penalty = -2.0F, .frequency_penalty = 2.0F},
        SamplingParams{.logit_bias = {{0, -100.0F}, {99, 100.0F}}}, SamplingParams{.log_probabilities = 20}}) {
    GenerationRequest request = good_request();
    request.sampling = sampling;
    EXPECT_TRUE(check_request(request, kLimits)) << sampling.temperature << " " << sampling.top_k << " " << sampling.top_p;
  }
}

TEST(RequestChecks, RefusesSamplingValuesOutsideTheirRangeAndNotANumber) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<SamplingParams, std::string>> bad{{{.temperature = -0.01F}, "temperature"},
                                                                {{.temperature = 2.01F}, "temperature"},
                                                                {{.temperature = 9e-4F}, "temperature"},
                                                                {{.temperature = kNan}, "temperature"},
                                                                {{.temperature = kInfinity}, "temperature"},
                                                                {{.top_k = -1}, "top_k"},
                                                                {{.top_p = 0.0F}, "top_p"},
                                                                {{.top_p = -0.5F}, "top_p"},
                                                                {{.top_p = 1.01F}, "top_p"},
                                                                {{.top_p = kNan}, "top_p"},
                                                                {{.top_p = kInfinity}, "top_p"},
                                                                {{.min_p = -0.01F}, "min_p"},
                                                                {{.min_p = 1.01F}, "min_p"},
                                                                {{.min_p = kNan}, "min_p"},
                                                                {{.repetition_penalty = 0.0F}, "repetition_penalty"},
                                                                {{.repetition_penalty = 10.1F}, "repetition_penalty"},
                                                                {{.repetition_penalty = kNan}, "repetition_penalty"},
                                                                {{.presence_penalty = 2.1F}, "presence_penalty"},
                                                                {{.presence_penalty = kNan}, "presence_penalty"},
                                                                {{.frequency_penalty = -2.1F}, "frequency_penalty"}};
  for (const auto& [sampling, field] : bad) {
    GenerationRequest request = good_request();
    request.sampling = sampling;
    expect_refused(request, kLimits, {field + " is "});
  }
}

}  // namespace
}  // namespace lockstep::scheduler
