// Goal    What a request asks of its tokens reaches them through a whole engine: end tokens, min_tokens, penalties, bias, log probabilities, early ends.
// Method  One engine with dummy weights, whose logits are all near zero: a penalty of 2 decides. Answers with and without the setting are compared.
#include <array>
#include <condition_variable>
#include <mutex>
#include <set>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::scheduler {
namespace {

using tests::Completion;
using tests::greedy_request;

/// Stops the engine at its next collective while it is held.
class Brake {
 public:
  void hold() { set(true); }
  void release() { set(false); }
  Status pass() {
    std::unique_lock lock(mutex_);
    released_.wait(lock, [this] { return !held_; });
    return {};
  }

 private:
  void set(bool held) {
    const std::lock_guard lock(mutex_);
    held_ = held;
    released_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable released_;
  bool held_ = false;
};

class Generation : public ::testing::Test {
 protected:
  Generation()
      : group_({.world_size = 1,
                .config = tests::small_config(),
                .make_weights = [] { return model::make_dummy_weights(5); },
                .engine = {.max_num_seqs = 8, .max_num_batched_tokens = 64, .max_pending = 8, .kv_cache_bytes = 1 << 20},
                .hooks = {.before = [this](int, std::string_view) { return brake_.pass(); }}}) {
    group_.wait_until_running();
  }

  GenerationRequest request(std::int32_t max_tokens) {
    GenerationRequest result = greedy_request(++last_id_, {4, 5, 6}, max_tokens);
    result.ignore_eos = true;
    return result;
  }
  Completion run(const GenerationRequest& request) {
    const Status accepted = group_.submit(0, request);
    EXPECT_TRUE(accepted) << (accepted ? "" : accepted.error().message);
    return group_.wait(request.id);
  }

  Brake brake_;
  tests::GroupHarness group_;
  RequestId last_id_ = 0;
};

TEST_F(Generation, AStopTokenEndsTheTextUnlessMinTokensForbidsIt) {
  const std::int32_t first = run(request(1)).tokens.at(0);
  GenerationRequest stopping = request(8);
  stopping.stop_token_ids = {first};
  const Completion stopped = run(stopping);
  EXPECT_EQ(stopped.tokens, std::vector<std::int32_t>{first});
  EXPECT_EQ(stopped.finish, FinishReason::kStop);

  GenerationRequest longer = request(8);
  longer.stop_token_ids = {first};
  longer.min_tokens = 5;
  const Completion forced = run(longer);
  ASSERT_GE(forced.tokens.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_NE(forced.tokens[i], first) << "token " << i;
  }
}

TEST_F(Generation, PenaltiesOfTheOutputKeepTokensFromComingAgain) {
  GenerationRequest penalized = request(40);
  penalized.sampling.presence_penalty = 2.0F;
  const Completion completion = run(penalized);
  EXPECT_EQ(std::set<std::int32_t>(completion.tokens.begin(), completion.tokens.end()).size(), 40U);
  const Completion plain = run(request(40));
  EXPECT_LT(std::set<std::int32_t>(plain.tokens.begin(), plain.tokens.end()).size(), 40U) << "the test shows nothing";
}

TEST_F(Generation, ABiasChoosesTheTokenAndLeavesItsLogProbability) {
  GenerationRequest biased = request(3);
  biased.sampling.logit_bias = {{7, 100.0F}};
  const Completion completion = run(biased);
  EXPECT_THAT(completion.tokens, ::testing::Each(7));
  EXPECT_THAT(completion.log_probabilities, ::testing::Each(::testing::Lt(-1.0F)));
}

TEST_F(Generation, TheLikeliestTokensComeWithEachTokenWhenAskedFor) {
  GenerationRequest asking = request(4);
  asking.sampling.log_probabilities = 3;
  const Completion completion = run(asking);
  ASSERT_EQ(completion.likeliest.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    ASSERT_EQ(completion.likeliest[i].size(), 3U);
    EXPECT_EQ(completion.likeliest[i][0].token, completion.tokens[i]) << "greedy takes the likeliest";
    EXPECT_EQ(completion.likeliest[i][0].log_probability, completion.log_probabilities[i]);
    EXPECT_GE(completion.likeliest[i][0].log_probability, completion.likeliest[i][1].log_probability);
    EXPECT_GE(completion.likeliest[i][1].log_probability, completion.likeliest[i][2].log_probability);
  }
  GenerationRequest silent = request(1);
  silent.sampling.log_probabilities = -1;
  EXPECT_TRUE(run(silent).likeliest.at(0).empty());
}

TEST_F(Generation, ACompletedRequestEndsAsIfItHadStopped) {
  const GenerationRequest endless = request(200);
  brake_.hold();
  ASSERT_TRUE(group_.submit(0, endless));
  group_.engine(0).complete(endless.id);
  brake_.release();
  const Completion completion = group_.wait(endless.id);
  EXPECT_EQ(completion.finish, FinishReason::kStop);
  EXPECT_LT(completion.tokens.size(), 200U);
}

TEST_F(Generation, SeveralRequestsAreAcceptedTogetherOrNotAtAll) {
  std::array<GenerationRequest, 2> both{request(2), request(2)};
  both[1].prompt_token_ids = {-1};
  const Status refused = group_.engine(0).submit_all(both);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(group_.engine(0).open_requests(), 0);
  both[1].prompt_token_ids = {4};
  ASSERT_TRUE(group_.engine(0).submit_all(both));
  EXPECT_EQ(group_.wait(last_id_ - 1).tokens.size(), 2U);
  EXPECT_EQ(group_.wait(last_id_).tokens.size(), 2U);
}

TEST_F(Generation, AnOpenIdIsRefused) {
  const GenerationRequest open = request(200);
  brake_.hold();
  ASSERT_TRUE(group_.submit(0, open));
  const Status refused = group_.submit(0, open);
  group_.cancel(0, open.id);
  brake_.release();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("is open already"));
  EXPECT_EQ(group_.wait(open.id).finish, FinishReason::kCancelled);
}

TEST_F(Generation, MaxRequestTokensIsWhatOneRequestMayHave) {
  const std::int32_t limit = group_.engine(0).max_request_tokens();
  EXPECT_EQ(run(request(limit - 3)).tokens.size(), static_cast<std::size_t>(limit - 3));
  EXPECT_FALSE(group_.submit(0, request(limit - 2)));
}

}  // namespace
}  // namespace lockstep::scheduler
