// Goal: a group wakes from any rank, drains from any rank, loses no accepted request, and frees what cancelled requests held.
// Method: whole groups in one process over LocalGroup, each with steps agreed on one by one and ahead.
#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::tests {
namespace {

using scheduler::AgreementMode;

GroupOptions life_options(int world_size, AgreementMode agreement) {
  scheduler::EngineOptions engine;
  engine.max_num_seqs = 8;
  engine.max_num_batched_tokens = 32;
  engine.kv_cache_bytes = 1 << 20;
  engine.agreement = agreement;
  engine.stall_timeout = std::chrono::seconds(200);
  return {.world_size = world_size, .config = small_config(), .make_weights = [] { return model::make_dummy_weights(5); }, .engine = engine};
}

class Life : public ::testing::TestWithParam<AgreementMode> {};

TEST_P(Life, FirstRequestFromColdRunsOnEveryRankInTurn) {
  std::vector<std::int32_t> tokens;
  for (int rank = 0; rank < 4; ++rank) {
    GroupHarness group(life_options(4, GetParam()));
    group.wait_until_running();
    ASSERT_TRUE(group.submit(rank, greedy_request(1, {5, 6, 7}, 8)));
    const Completion completion = group.wait(1);
    EXPECT_EQ(completion.finish, scheduler::FinishReason::kLength);
    if (rank == 0) {
      tokens = completion.tokens;
    }
    EXPECT_EQ(completion.tokens, tokens) << "rank " << rank;
  }
}

TEST_P(Life, DrainFromAnyRankFinishesWhatWasAcceptedEverywhereAndRefusesTheRest) {
  for (int drainer = 0; drainer < 3; ++drainer) {
    GroupHarness group(life_options(3, GetParam()));
    group.wait_until_running();
    for (scheduler::RequestId id = 1; id <= 30; ++id) {  // more than fit at once: some wait
      ASSERT_TRUE(group.submit(static_cast<int>(id % 3), greedy_request(id, {9, 8, 7, 6}, 40)));
    }
    group.wait_for_tokens(1, 2);
    group.drain(drainer);
    const Status refused = group.submit(drainer, greedy_request(100, {1, 2}, 2));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kCancelled);
    for (scheduler::RequestId id = 1; id <= 30; ++id) {
      EXPECT_EQ(group.wait(id).finish, scheduler::FinishReason::kLength) << "request " << id;
    }
    for (const Status& status : group.join()) {
      EXPECT_TRUE(status) << status.error().message;
    }
  }
}

TEST_P(Life, ARequestAcceptedOnAnotherRankWhileTheDrainSpreadsIsNotLost) {
  for (int round = 0; round < 25; ++round) {
    GroupHarness group(life_options(2, GetParam()));
    group.wait_until_running();
    std::thread drainer([&group] { group.drain(0); });
    scheduler::RequestId accepted = 0;
    while (group.submit(1, greedy_request(accepted + 1, {3, 4}, 3))) {
      ++accepted;
      if (accepted > 60) {
        break;
      }
    }
    drainer.join();
    for (scheduler::RequestId id = 1; id <= accepted; ++id) {
      ASSERT_EQ(group.wait(id).finish, scheduler::FinishReason::kLength) << "request " << id << " of " << accepted << ", round " << round;
    }
    for (const Status& status : group.join()) {
      ASSERT_TRUE(status) << status.error().message;
    }
  }
}

TEST_P(Life, CancelledRequestsFreeTheirBlocks) {
  GroupHarness group(life_options(2, GetParam()));
  group.wait_until_running();
  for (scheduler::RequestId id = 1; id <= 12; ++id) {
    scheduler::GenerationRequest request = greedy_request(id, {2, 3, 4}, 200);
    request.ignore_eos = true;
    ASSERT_TRUE(group.submit(static_cast<int>(id % 2), request));
  }
  group.wait_for_tokens(1, 1);
  for (scheduler::RequestId id = 1; id <= 12; ++id) {
    group.cancel(static_cast<int>(id % 2), id);
    group.cancel(static_cast<int>(id % 2), id);  // a second one is ignored
  }
  for (scheduler::RequestId id = 1; id <= 12; ++id) {
    EXPECT_EQ(group.wait(id).finish, scheduler::FinishReason::kCancelled);
  }
  ASSERT_TRUE(group.submit(0, greedy_request(50, {2}, 1)));
  group.wait(50);
  group.drain(1);
  for (const Status& status : group.join()) {
    EXPECT_TRUE(status) << status.error().message;
  }
  EXPECT_EQ(group.counters(0).queue.kv_blocks_used, 0);
  EXPECT_EQ(group.counters(1).queue.kv_blocks_used, 0);
}

TEST_P(Life, ALostRankEndsEveryOpenRequestWithRankLostOnTheSurvivors) {
  GroupHarness group(life_options(3, GetParam()));
  group.wait_until_running();
  for (scheduler::RequestId id = 1; id <= 6; ++id) {
    scheduler::GenerationRequest request = greedy_request(id, {2, 3, 4}, 240);
    request.ignore_eos = true;
    ASSERT_TRUE(group.submit(static_cast<int>(id % 2), request));
  }
  group.wait_for_tokens(1, 2);
  group.local_group().mark_lost(2);
  const std::vector<Status> statuses = group.join();
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_FALSE(statuses[static_cast<std::size_t>(rank)]);
    EXPECT_EQ(statuses[static_cast<std::size_t>(rank)].error().code, ErrorCode::kPeerLost);
    EXPECT_NE(statuses[static_cast<std::size_t>(rank)].error().message.find("step "), std::string::npos)
        << statuses[static_cast<std::size_t>(rank)].error().message;
  }
  for (scheduler::RequestId id = 1; id <= 6; ++id) {
    const Completion completion = group.wait(id);
    EXPECT_TRUE(completion.finish == scheduler::FinishReason::kRankLost || completion.tokens.size() == 240) << "request " << id;
  }
}

INSTANTIATE_TEST_SUITE_P(Agreements, Life, ::testing::Values(AgreementMode::kSync, AgreementMode::kPipelined),
                         [](const auto& chosen) { return agreement_name(chosen.param); });

}  // namespace
}  // namespace lockstep::tests
