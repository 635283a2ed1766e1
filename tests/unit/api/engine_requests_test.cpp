// Goal    Every choice of every prompt becomes one request of the engine, in order, with a seed of its own and a max_tokens that fits.
// Method  Jobs by hand.
#include "daemon/api/request/engine_requests.hpp"

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

TEST(EngineRequests, IdsNameGenerationAndChoice) {
  const GenerationJob job{.prompts = {{1}, {2, 3}}, .choices_per_prompt = 2};
  const auto requests = make_engine_requests(7, job, 100);
  ASSERT_EQ(requests.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(generation_of(requests[i].id), 7U);
    EXPECT_EQ(choice_of(requests[i].id), i);
    EXPECT_EQ(requests[i].prompt_token_ids, job.prompts[i / 2]);
  }
  EXPECT_EQ(request_id_of(7, 3), requests[3].id);
}

TEST(EngineRequests, TheFirstChoiceOfEveryPromptHasThePlainSeedAndTheOthersTheirOwn) {
  GenerationJob job{.prompts = {{1}, {2}}, .choices_per_prompt = 3};
  std::set<std::uint64_t> seeds;
  for (const std::uint64_t seed : {0ULL, 1ULL, 2ULL, 18446744073709551615ULL}) {
    job.sampling.seed = seed;
    const auto requests = make_engine_requests(1, job, 100);
    EXPECT_EQ(requests[0].sampling.seed, seed);
    EXPECT_EQ(requests[3].sampling.seed, seed);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(requests[i].sampling.seed, requests[i + 3].sampling.seed) << "a prompt's texts do not depend on its neighbours";
      EXPECT_TRUE(seeds.insert(requests[i].sampling.seed).second) << "seed " << seed << ", choice " << i;
    }
  }
}

TEST(EngineRequests, TheDefaultOfMaxTokensIsWhatFits) {
  GenerationJob job{.prompts = {{1, 2, 3}, {1}}};
  const auto all_fit = make_engine_requests(1, job, 100);
  EXPECT_EQ(all_fit[0].max_tokens, 16);
  const auto tight = make_engine_requests(1, job, 10);
  EXPECT_EQ(tight[0].max_tokens, 7);
  EXPECT_EQ(tight[1].max_tokens, 9);
  job.max_tokens = 50;
  EXPECT_EQ(make_engine_requests(1, job, 10)[0].max_tokens, 50);
}

TEST(EngineRequests, APromptWithoutRoomForATokenIsRefused) {
  const GenerationJob job{.prompts = {{1, 2, 3}}};
  EXPECT_FALSE(job_refusal(job, 4));
  const auto refused = job_refusal(job, 3);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 400);
  EXPECT_EQ(refused->code, "context_length_exceeded");
  EXPECT_NE(refused->message.find("3 tokens"), std::string::npos);
}

TEST(EngineRequests, MaxTokensBeyondTheContextAreRefused) {
  const GenerationJob job{.prompts = {{1}, {1, 2, 3}}, .max_tokens = 7};
  EXPECT_FALSE(job_refusal(job, 10));
  const auto refused = job_refusal(job, 9);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code, "context_length_exceeded");
  EXPECT_NE(refused->message.find("3 prompt tokens and max_tokens 7 make 10"), std::string::npos) << refused->message;
  EXPECT_TRUE(job_refusal({.prompts = {{1}}, .max_tokens = 2147483647}, 2147483647));
}

TEST(EngineRequests, MinTokensBeyondWhatMayBeGeneratedAreRefusedByName) {
  GenerationJob job{.prompts = {{1, 2, 3}}, .max_tokens = 4, .min_tokens = 4};
  EXPECT_FALSE(job_refusal(job, 100));
  job.min_tokens = 5;
  const auto refused = job_refusal(job, 100);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->param, "min_tokens");
  EXPECT_NE(refused->message.find("min_tokens is 5, expected at most max_tokens, which is 4"), std::string::npos) << refused->message;
  job.max_tokens.reset();
  EXPECT_FALSE(job_refusal(job, 8)) << "five are left of the context";
  EXPECT_TRUE(job_refusal(job, 7));
}

TEST(EngineRequests, ARefusedLengthNamesTheFieldOfThePrompt) {
  GenerationJob job{.prompts = {{1, 2, 3}}};
  EXPECT_EQ(job_refusal(job, 3)->param, "prompt");
  job.prompt_field = "messages";
  EXPECT_EQ(job_refusal(job, 3)->param, "messages");
}

TEST(EngineRequests, APromptThatIsOnlyScoredMayFillTheContext) {
  const GenerationJob job{.prompts = {{1, 2, 3}}, .scores_prompts = true, .max_tokens = 0};
  EXPECT_FALSE(job_refusal(job, 3));
  EXPECT_TRUE(job_refusal(job, 2));
  const auto requests = make_engine_requests(1, job, 3);
  EXPECT_TRUE(requests[0].scores_prompt);
  EXPECT_EQ(requests[0].max_tokens, 0);
}

}  // namespace
}  // namespace lockstep::daemon
