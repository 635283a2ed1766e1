// Goal    Requests that give their KV blocks up midway and are computed again later give what they give alone: tokens, log probabilities, scored prompts and
//         embeddings, bit for bit, nothing twice and nothing left out; and all end, whatever the cache holds.
// Method  World 1, one request at a time, with room for everything, is the reference. Then all at once in caches of little more than the longest request,
//         whole, split, in chunks, agreed on ahead, at several world sizes; counters prove that there were preemptions.
#include <algorithm>

#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::tests {
namespace {

using scheduler::AgreementMode;
using scheduler::GenerationRequest;

constexpr int kRequests = 24;
constexpr std::int64_t kBlockBytes = 2048;  ///< of small_config()
constexpr std::int32_t kLongest = 170;      ///< tokens of prompt and answer: 11 blocks

enum Kind : std::uint8_t { kGreedy, kSeeded, kScored, kEmbedding, kKindCount };

GenerationRequest request_of(int index, int round) {
  std::vector<std::int32_t> prompt;
  const int length = 1 + index * 37 % 100;
  for (int i = 0; i < length; ++i) {
    prompt.push_back(3 + (i * 131 + index * 7919 + i * i * 17) % 93);
  }
  GenerationRequest request = greedy_request(static_cast<scheduler::RequestId>(round * kRequests + index + 1), std::move(prompt), 10 + index * 13 % 60);
  request.ignore_eos = index % 5 != 0;
  request.sampling.log_probabilities = 2;
  switch (static_cast<Kind>(index % kKindCount)) {
    case kGreedy:
      break;
    case kSeeded:
      request.sampling = {.temperature = 0.9F,
                          .top_p = 0.95F,
                          .repetition_penalty = 1.1F,
                          .presence_penalty = 0.3F,
                          .frequency_penalty = 0.2F,
                          .seed = static_cast<std::uint64_t>(index),
                          .log_probabilities = 2};
      request.min_tokens = 8;
      request.stop_token_ids = {20, 50, 80};
      break;
    case kScored:
      request.scores_prompt = true;
      request.max_tokens = index % 3 == 0 ? 0 : request.max_tokens;
      break;
    default:
      request.pooling = index % 8 == 3 ? scheduler::Pooling::kMean : scheduler::Pooling::kLast;
      request.sampling.log_probabilities = -1;
      request.max_tokens = 0;
  }
  return request;
}

struct Case {
  int world_size;
  std::int32_t micro_batches;
  std::int32_t batched_tokens;
  AgreementMode agreement;
  std::int32_t blocks;
};

GroupOptions options_of(const Case& parameters) {
  GroupOptions options{.world_size = parameters.world_size, .config = small_config(), .make_weights = [] { return model::make_dummy_weights(11); }};
  options.engine.max_num_seqs = 16;
  options.engine.max_num_batched_tokens = parameters.batched_tokens;
  options.engine.kv_cache_bytes = parameters.blocks * kBlockBytes;
  options.engine.micro_batches = parameters.micro_batches;
  options.engine.agreement = parameters.agreement;
  options.engine.stall_timeout = std::chrono::seconds(200);
  return options;
}

bool same_likeliest(const std::vector<model::TokenLogProbability>& a, const std::vector<model::TokenLogProbability>& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) { return x.token == y.token && x.log_probability == y.log_probability; });
}

void expect_same(const Completion& found, const Completion& expected) {
  EXPECT_EQ(found.error, "");
  EXPECT_EQ(found.finish, expected.finish);
  EXPECT_EQ(found.tokens, expected.tokens);
  EXPECT_EQ(found.log_probabilities, expected.log_probabilities);
  EXPECT_TRUE(std::ranges::equal(found.likeliest, expected.likeliest, same_likeliest));
  EXPECT_EQ(found.prompt_tokens, expected.prompt_tokens);
  EXPECT_EQ(found.prompt_log_probabilities, expected.prompt_log_probabilities);
  EXPECT_TRUE(std::ranges::equal(found.prompt_likeliest, expected.prompt_likeliest, same_likeliest));
  EXPECT_EQ(found.embedding, expected.embedding);
}

std::vector<Completion> answers_alone() {
  GroupHarness group(options_of({1, 1, 256, AgreementMode::kSync, 64}));
  group.wait_until_running();
  std::vector<Completion> answers;
  for (int index = 0; index < kRequests; ++index) {
    const GenerationRequest request = request_of(index, 0);
    EXPECT_LE(std::ssize(request.prompt_token_ids) + request.max_tokens, kLongest);
    EXPECT_TRUE(group.submit(0, request));
    answers.push_back(group.wait(request.id));
  }
  EXPECT_EQ(group.counters(0).queue.preemptions, 0) << "one at a time";
  return answers;
}

TEST(Preemption, GivesTheAnswersThatRequestsGiveAlone) {
  const std::vector<Completion> expected = answers_alone();
  constexpr AgreementMode kSync = AgreementMode::kSync;
  constexpr AgreementMode kAhead = AgreementMode::kPipelined;
  constexpr int kRounds = 2;
  for (const Case& parameters : {Case{1, 1, 256, kSync, 12}, Case{1, 2, 20, kSync, 16}, Case{2, 1, 256, kSync, 14}, Case{2, 1, 20, kAhead, 12},
                                 Case{2, 2, 64, kAhead, 16}, Case{4, 1, 24, kSync, 12}, Case{4, 2, 24, kAhead, 12}}) {
    SCOPED_TRACE(::testing::Message() << "world " << parameters.world_size << ", micro-batches " << parameters.micro_batches << ", batched tokens "
                                      << parameters.batched_tokens << ", " << agreement_name(parameters.agreement) << ", blocks " << parameters.blocks);
    GroupHarness group(options_of(parameters));
    group.wait_until_running();
    // Every rank gets all of them: a rank with a few would have room enough. An id names one request of the group, so each rank's round has its own.
    const int rounds = kRounds * parameters.world_size;
    for (int round = 0; round < rounds; ++round) {
      for (int index = 0; index < kRequests; ++index) {
        ASSERT_TRUE(group.submit(round % parameters.world_size, request_of(index, round)));
      }
    }
    for (int round = 0; round < rounds; ++round) {
      for (int index = 0; index < kRequests; ++index) {
        SCOPED_TRACE(::testing::Message() << "request " << index << " of round " << round);
        expect_same(group.wait(request_of(index, round).id), expected[static_cast<std::size_t>(index)]);
      }
    }
    group.drain(0);
    for (const Status& status : group.join()) {
      ASSERT_TRUE(status) << status.error().message;
    }
    for (int rank = 0; rank < parameters.world_size; ++rank) {
      const RankCounters counters = group.counters(rank);
      EXPECT_GT(counters.queue.preemptions, 0) << "rank " << rank;
      EXPECT_EQ(counters.queue.kv_blocks_used, 0) << "rank " << rank;
      EXPECT_EQ(counters.collective_hash, group.counters(0).collective_hash);
    }
  }
}

TEST(Preemption, OfARequestWhosePromptIsBeingReadGivesItsScoresOnceAndItsSumFromTheStart) {
  constexpr std::int32_t kPrompt = 100;
  for (const AgreementMode agreement : {AgreementMode::kSync, AgreementMode::kPipelined}) {
    for (const int index : {2, 6, 3, 7}) {  // scored without an answer and with one, both ways to pool
      SCOPED_TRACE(::testing::Message() << agreement_name(agreement) << ", request " << index);
      GenerationRequest last = request_of(index, 0);
      last.prompt_token_ids.resize(kPrompt, 40);
      last.max_tokens = index == 6 ? 5 : 0;
      Completion expected;
      {
        GroupHarness group(options_of({1, 1, 256, AgreementMode::kSync, 64}));
        group.wait_until_running();
        ASSERT_TRUE(group.submit(0, last));
        expected = group.wait(last.id);
      }
      // Two that grow by a block every 16 steps, beside a prompt that gets the two rows that they leave of each step.
      GroupHarness group(options_of({2, 1, 4, agreement, 13}));
      group.wait_until_running();
      std::vector<GenerationRequest> requests{greedy_request(1000, std::vector<std::int32_t>(17, 5), 100),
                                              greedy_request(1001, std::vector<std::int32_t>(17, 6), 100), last};
      requests[0].ignore_eos = true;
      requests[1].ignore_eos = true;
      ASSERT_TRUE(group.engine(0).submit_all(requests));
      expect_same(group.wait(last.id), expected);
      EXPECT_GT(group.counters(0).queue.preemptions, 0);
      EXPECT_EQ(group.wait(1000).tokens.size(), 100U);
      EXPECT_EQ(group.wait(1001).tokens.size(), 100U);
    }
  }
}

}  // namespace
}  // namespace lockstep::tests
