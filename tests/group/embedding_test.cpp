// Goal    A text has one embedding, bit for bit: alone, among others, in chunks, split in micro-batches, on any rank and at any world size; and it takes part
//         in agreed steps like any other request.
// Method  World 1, one text at a time, unchunked, is the reference. Texts for embeddings and texts that generate share steps; counters prove the conditions.
#include <cmath>

#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::tests {
namespace {

using scheduler::AgreementMode;
using scheduler::FinishReason;
using scheduler::GenerationRequest;
using scheduler::Pooling;

constexpr int kTexts = 10;

GenerationRequest text_of(int index, Pooling pooling, scheduler::RequestId id) {
  GenerationRequest request;
  request.id = id;
  const int length = index == 0 ? 100 : 1 + index * 37 % 90;
  for (int i = 0; i < length; ++i) {
    request.prompt_token_ids.push_back(3 + (i * 131 + index * 7919 + i * i * 17) % 93);
  }
  request.max_tokens = 0;
  request.pooling = pooling;
  return request;
}

struct Case {
  int world_size;
  std::int32_t micro_batches;
  std::int32_t batched_tokens;
  scheduler::AgreementMode agreement = scheduler::AgreementMode::kSync;
};

GroupOptions options_of(const Case& parameters) {
  GroupOptions options{.world_size = parameters.world_size, .config = small_config(), .make_weights = [] { return model::make_dummy_weights(7); }};
  options.engine.max_num_seqs = 32;
  options.engine.max_num_batched_tokens = parameters.batched_tokens;
  options.engine.kv_cache_bytes = std::int64_t{8} << 20;
  options.engine.micro_batches = parameters.micro_batches;
  options.engine.agreement = parameters.agreement;
  options.engine.stall_timeout = std::chrono::seconds(200);
  return options;
}

class Embedding : public ::testing::TestWithParam<Pooling> {};

TEST_P(Embedding, IsOneAtEveryWorldSizeAloneAndAmongOthersChunkedAndSplit) {
  std::vector<std::vector<float>> expected;
  {
    GroupHarness alone(options_of({1, 1, 2048}));
    alone.wait_until_running();
    for (int index = 0; index < kTexts; ++index) {
      const GenerationRequest request = text_of(index, GetParam(), static_cast<scheduler::RequestId>(index + 1));
      ASSERT_TRUE(alone.submit(0, request));
      const Completion completion = alone.wait(request.id);
      EXPECT_EQ(completion.finish, FinishReason::kStop);
      EXPECT_TRUE(completion.tokens.empty());
      ASSERT_EQ(completion.embedding.size(), 32U);
      double squares = 0;
      for (const float value : completion.embedding) {
        squares += static_cast<double>(value) * static_cast<double>(value);
      }
      EXPECT_NEAR(squares, 1.0, 1e-5);
      expected.push_back(completion.embedding);
    }
    EXPECT_NE(expected[0], expected[1]);
  }
  for (const Case& parameters : {Case{1, 1, 24}, Case{1, 2, 2048}, Case{2, 1, 2048}, Case{2, 2, 24}, Case{4, 2, 48}, Case{4, 1, 24},
                                 Case{4, 1, 24, AgreementMode::kPipelined}, Case{2, 2, 24, AgreementMode::kPipelined}}) {
    SCOPED_TRACE(::testing::Message() << "world " << parameters.world_size << ", micro-batches " << parameters.micro_batches << ", batched tokens "
                                      << parameters.batched_tokens << ", " << agreement_name(parameters.agreement));
    GroupHarness group(options_of(parameters));
    group.wait_until_running();
    for (int index = 0; index < kTexts; ++index) {
      const int rank = (index * 5 + 1) % parameters.world_size;
      GenerationRequest generation = greedy_request(static_cast<scheduler::RequestId>(1000 + index), {3, 4, 5 + index}, 8);
      generation.ignore_eos = true;
      ASSERT_TRUE(group.submit(rank, generation));
      ASSERT_TRUE(group.submit(rank, text_of(index, GetParam(), static_cast<scheduler::RequestId>(index + 1))));
    }
    for (int index = 0; index < kTexts; ++index) {
      EXPECT_EQ(group.wait(static_cast<scheduler::RequestId>(index + 1)).embedding, expected[static_cast<std::size_t>(index)]) << "text " << index;
      EXPECT_EQ(group.wait(static_cast<scheduler::RequestId>(1000 + index)).tokens.size(), 8U);
    }
    const RankCounters counters = group.counters(parameters.world_size == 1 ? 0 : 1);
    EXPECT_EQ(counters.split_steps > 0, parameters.micro_batches == 2);
    if (parameters.batched_tokens == 24) {
      EXPECT_GE(counters.prefill_chunks_max, 2);
    }
    EXPECT_EQ(counters.crossed_rows > 0, parameters.world_size > 1);
    EXPECT_EQ(group.engine(0).open_requests(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Poolings, Embedding, ::testing::Values(Pooling::kMean, Pooling::kLast),
                         [](const auto& chosen) { return chosen.param == Pooling::kMean ? "Mean" : "Last"; });

TEST(EmbeddingPooling, OfOneTokenIsTheSameBothWaysAndOfSeveralItIsNot) {
  GroupHarness group(options_of({1, 1, 64}));
  group.wait_until_running();
  scheduler::RequestId id = 0;
  for (const std::size_t tokens : {1U, 2U}) {
    std::vector<std::vector<float>> found;
    for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
      GenerationRequest request = text_of(1, pooling, ++id);
      request.prompt_token_ids.resize(tokens);
      ASSERT_TRUE(group.submit(0, request));
      found.push_back(group.wait(id).embedding);
    }
    EXPECT_EQ(found[0] == found[1], tokens == 1);
  }
}

TEST(EmbeddingPooling, ATextThatAsksForTokensOrIsTooLongIsRefused) {
  GroupHarness group(options_of({1, 1, 64}));
  group.wait_until_running();
  GenerationRequest request = text_of(0, Pooling::kMean, 1);
  request.max_tokens = 1;
  EXPECT_FALSE(group.submit(0, request));
  request.max_tokens = 0;
  request.prompt_token_ids.assign(257, 5);
  EXPECT_FALSE(group.submit(0, request)) << "the context has 256 tokens";
  request.prompt_token_ids.assign(256, 5);
  EXPECT_TRUE(group.submit(0, request)) << "no room is needed for an answer";
  EXPECT_EQ(group.wait(1).finish, FinishReason::kStop);
}

}  // namespace
}  // namespace lockstep::tests
