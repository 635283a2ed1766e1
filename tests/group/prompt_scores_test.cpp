// Goal    The log probabilities of a prompt's tokens are those that the same tokens have when they are generated, and are one, bit for bit: alone, among
//         others, in chunks, split in micro-batches, with few logit rows, on any rank and at any world size.
// Method  World 1, one prompt at a time, unchunked, is the reference; a greedy answer made part of the next prompt tells what its tokens' numbers must be.
#include <algorithm>

#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::tests {
namespace {

using scheduler::FinishReason;
using scheduler::GenerationRequest;

constexpr int kPrompts = 8;
constexpr std::int32_t kLikeliest = 3;

GenerationRequest scoring_request(scheduler::RequestId id, std::vector<std::int32_t> prompt, std::int32_t max_tokens) {
  GenerationRequest request = greedy_request(id, std::move(prompt), max_tokens);
  request.ignore_eos = true;
  request.sampling.log_probabilities = kLikeliest;
  request.scores_prompt = true;
  return request;
}

/// Some generate nothing, some one token, some several.
GenerationRequest request_of(int index, scheduler::RequestId id) {
  std::vector<std::int32_t> prompt;
  const int length = index == 0 ? 110 : 1 + index * 41 % 90;
  for (int i = 0; i < length; ++i) {
    prompt.push_back(3 + (i * 131 + index * 7919 + i * i * 17) % 93);
  }
  return scoring_request(id, std::move(prompt), index % 3);
}

struct Case {
  int world_size;
  std::int32_t micro_batches;
  std::int32_t batched_tokens;
  std::int32_t sequences;  ///< and so the logit rows that are made at once
};

GroupOptions options_of(const Case& parameters) {
  GroupOptions options{.world_size = parameters.world_size, .config = small_config(), .make_weights = [] { return model::make_dummy_weights(7); }};
  options.engine.max_num_seqs = parameters.sequences;
  options.engine.max_num_batched_tokens = parameters.batched_tokens;
  options.engine.kv_cache_bytes = std::int64_t{8} << 20;
  options.engine.micro_batches = parameters.micro_batches;
  options.engine.stall_timeout = std::chrono::seconds(200);
  return options;
}

bool same_likeliest(const std::vector<model::TokenLogProbability>& a, const std::vector<model::TokenLogProbability>& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) { return x.token == y.token && x.log_probability == y.log_probability; });
}

void expect_same(const Completion& found, const Completion& expected) {
  EXPECT_EQ(found.finish, expected.finish);
  EXPECT_EQ(found.tokens, expected.tokens);
  EXPECT_EQ(found.log_probabilities, expected.log_probabilities);
  EXPECT_EQ(found.prompt_tokens, expected.prompt_tokens);
  EXPECT_EQ(found.prompt_log_probabilities, expected.prompt_log_probabilities);
  EXPECT_TRUE(std::ranges::equal(found.prompt_likeliest, expected.prompt_likeliest, same_likeliest));
}

TEST(PromptScores, AreThoseOfTheSameTokensWhenTheyWereGenerated) {
  GroupHarness group(options_of({1, 1, 2048, 32}));
  group.wait_until_running();
  const std::vector<std::int32_t> prompt{5, 9, 14, 6};
  GenerationRequest first = scoring_request(1, prompt, 40);
  first.scores_prompt = false;
  ASSERT_TRUE(group.submit(0, first));
  const Completion generated = group.wait(1);
  ASSERT_EQ(generated.tokens.size(), 40U);
  EXPECT_TRUE(generated.prompt_tokens.empty()) << "not asked for";

  std::vector<std::int32_t> longer = prompt;
  longer.insert(longer.end(), generated.tokens.begin(), generated.tokens.end());
  ASSERT_TRUE(group.submit(0, scoring_request(2, longer, 0)));
  const Completion scored = group.wait(2);
  EXPECT_EQ(scored.finish, FinishReason::kLength);
  EXPECT_TRUE(scored.tokens.empty());
  ASSERT_EQ(scored.prompt_tokens, std::vector<std::int32_t>(longer.begin() + 1, longer.end()));
  for (std::size_t i = 0; i < generated.tokens.size(); ++i) {
    const std::size_t at = prompt.size() - 1 + i;
    EXPECT_EQ(scored.prompt_log_probabilities[at], generated.log_probabilities[i]) << "token " << i;
    EXPECT_TRUE(same_likeliest(scored.prompt_likeliest[at], generated.likeliest[i])) << "token " << i;
    EXPECT_EQ(scored.prompt_likeliest[at].front().token, longer[at + 1]) << "greedy takes the likeliest";
  }
}

TEST(PromptScores, AreOneAtEveryWorldSizeAloneAndAmongOthersChunkedAndSplit) {
  std::vector<Completion> expected;
  {
    GroupHarness alone(options_of({1, 1, 2048, 256}));
    alone.wait_until_running();
    for (int index = 0; index < kPrompts; ++index) {
      const GenerationRequest request = request_of(index, static_cast<scheduler::RequestId>(index + 1));
      ASSERT_TRUE(alone.submit(0, request));
      expected.push_back(alone.wait(request.id));
      EXPECT_EQ(expected.back().finish, FinishReason::kLength);
      EXPECT_EQ(expected.back().prompt_tokens.size(), request.prompt_token_ids.size() - 1);
      EXPECT_EQ(expected.back().tokens.size(), static_cast<std::size_t>(request.max_tokens));
    }
  }
  for (const Case& parameters : {Case{1, 1, 24, 32}, Case{1, 2, 2048, 3}, Case{2, 1, 2048, 32}, Case{2, 2, 24, 5}, Case{4, 2, 48, 32}, Case{4, 1, 24, 1}}) {
    SCOPED_TRACE(::testing::Message() << "world " << parameters.world_size << ", micro-batches " << parameters.micro_batches << ", batched tokens "
                                      << parameters.batched_tokens << ", sequences " << parameters.sequences);
    GroupHarness group(options_of(parameters));
    group.wait_until_running();
    for (int index = 0; index < kPrompts; ++index) {
      const int rank = (index * 5 + 1) % parameters.world_size;
      GenerationRequest generation = greedy_request(static_cast<scheduler::RequestId>(1000 + index), {3, 4, 5 + index}, 8);
      generation.ignore_eos = true;
      ASSERT_TRUE(group.submit(rank, generation));
      ASSERT_TRUE(group.submit(rank, request_of(index, static_cast<scheduler::RequestId>(index + 1))));
    }
    for (int index = 0; index < kPrompts; ++index) {
      SCOPED_TRACE(::testing::Message() << "prompt " << index);
      expect_same(group.wait(static_cast<scheduler::RequestId>(index + 1)), expected[static_cast<std::size_t>(index)]);
      EXPECT_EQ(group.wait(static_cast<scheduler::RequestId>(1000 + index)).tokens.size(), 8U);
    }
    EXPECT_EQ(group.counters(parameters.world_size == 1 ? 0 : 1).split_steps > 0, parameters.micro_batches == 2);
    EXPECT_EQ(group.engine(0).open_requests(), 0);
  }
}

TEST(PromptScores, NeedLogProbabilitiesAndNoEmbedding) {
  GroupHarness group(options_of({1, 1, 64, 8}));
  group.wait_until_running();
  GenerationRequest request = scoring_request(1, {4, 5}, 0);
  request.sampling.log_probabilities = -1;
  EXPECT_FALSE(group.submit(0, request));
  request.sampling.log_probabilities = 0;
  request.pooling = scheduler::Pooling::kLast;
  EXPECT_FALSE(group.submit(0, request));
  request.pooling = scheduler::Pooling::kNone;
  EXPECT_TRUE(group.submit(0, request));
  EXPECT_EQ(group.wait(1).prompt_tokens, std::vector<std::int32_t>{5});
}

}  // namespace
}  // namespace lockstep::tests
