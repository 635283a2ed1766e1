// Goal    Members that run StepAgreement come to the same plan every step, and one that differs is refused by all of them, by name, at the handshake or within
// the
//         step.
// Method  Members as threads over LocalGroup; proposals from a seed, so that every member can compute what the plan must be.
#include "lockstep/comm/step_agreement.hpp"

#include <mutex>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agreement/exchange/uncounted_communicator.hpp"
#include "tests/unit/agreement/matrices.hpp"
#include "tests/unit/agreement/members.hpp"

namespace lockstep::comm {
namespace {

using ::testing::AllOf;
using testing::hang_limit;
using ::testing::HasSubstr;
using testing::run_members;
using testing::UncountedCommunicator;

constexpr std::uint64_t kHash = 0xfedcba9876543210ULL;

TEST(StepAgreementHandshake, SucceedsWhenAllMembersAreEqual) {
  for (const int size : {1, 2, 5}) {
    run_members(size, [&](int rank, Communicator& communicator) {
      StepAgreement agreement(communicator, GroupView::initial(size, rank));
      const Status status = agreement.handshake(kHash, kProtocolVersion, hang_limit());
      EXPECT_TRUE(status) << status.error().message;
    });
  }
}

TEST(StepAgreementHandshake, NamesTheMemberItsHashAndOursOnEveryMemberWhicheverDiffers) {
  for (int odd = 0; odd < 3; ++odd) {
    run_members(3, [&](int rank, Communicator& communicator) {
      StepAgreement agreement(communicator, GroupView::initial(3, rank));
      const std::uint64_t mine = rank == odd ? kHash + (1ULL << 40U) : kHash;
      const Status status = agreement.handshake(mine, kProtocolVersion, hang_limit());
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
      EXPECT_EQ(status.error().rank, odd);
      EXPECT_THAT(status.error().message,
                  AllOf(HasSubstr("handshake: config_hash differs: members "), HasSubstr("member " + std::to_string(odd) + " has 0xfedcbb9876543210"),
                        HasSubstr("ours (member " + std::to_string(rank) + ") is 0x" + (rank == odd ? "fedcbb9876543210" : "fedcba9876543210"))));
    });
  }
}

TEST(StepAgreementHandshake, ComparesVersionsBeforeHashesForAHashMeansNothingBetweenVersions) {
  run_members(2, [&](int rank, Communicator& communicator) {
    StepAgreement agreement(communicator, GroupView::initial(2, rank));
    const Status status = agreement.handshake(kHash + static_cast<std::uint64_t>(rank), kProtocolVersion + rank, hang_limit());
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
    EXPECT_EQ(status.error().rank, 1 - rank) << "with no majority, it is the other one that differs";
    EXPECT_THAT(status.error().message, HasSubstr("handshake: protocol_version differs: member 0 has " + std::to_string(kProtocolVersion) + ", member 1 has " +
                                                  std::to_string(kProtocolVersion + 1)));
  });
}

TEST(StepAgreementHandshake, RefusesARecordWithoutTheMagic) {
  run_members(2, [&](int rank, Communicator& communicator) {
    if (rank == 0) {
      StepAgreement agreement(communicator, GroupView::initial(2, rank));
      const Status status = agreement.handshake(kHash, kProtocolVersion, hang_limit());
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().rank, 1);
      EXPECT_THAT(status.error().message, HasSubstr("handshake: magic differs: member 0 has 0x4c4f434b, member 1 has 0x00000000"));
    } else {
      // Some other program in our place. Eight words a member for all versions, forever: this number must never change.
      const std::vector<std::int32_t> nothing(2 * 8, 0);
      auto ticket = communicator.start_all_reduce(nothing, ReduceOp::kSum);
      ASSERT_TRUE(ticket);
      std::vector<std::int32_t> sum(nothing.size());
      ASSERT_TRUE(communicator.wait(*ticket, sum, hang_limit()));
      EXPECT_EQ(sum[0], 0x4C4F434B);
      EXPECT_EQ(sum[1], kProtocolVersion);
      EXPECT_EQ(sum[2], 0x76543210);
      EXPECT_EQ(static_cast<std::uint32_t>(sum[3]), 0xfedcba98U);
    }
  });
}

StepProposal proposal_of(std::int64_t step, int rank) {
  const auto noise = static_cast<std::uint64_t>(step) * 2654435761U + static_cast<std::uint64_t>(rank) * 40503U;
  const auto tokens = static_cast<std::int32_t>(noise / 64 % 4 * (noise / 7 % 3));
  return {.step = step,
          .epoch = 3,
          .config_hash = kHash,
          .tokens = tokens,
          .prefill_tokens = tokens / 2,
          .requests = tokens,
          .padded_tokens = tokens + 1,
          .micro_batches = 1 + static_cast<std::int32_t>(noise / 11 % 2),
          .graph_mode = static_cast<GraphMode>(noise / 13 % 3),
          .waiting = static_cast<std::int32_t>(noise / 17 % 2),
          .free_kv_blocks = 5,
          .used_kv_blocks = static_cast<std::int32_t>(noise / 19 % 9),
          .waited_us = static_cast<std::int32_t>(noise / 23 % 300)};
}

TEST(StepAgreement, GivesEveryMemberThePlanOfAllProposalsAndAllocatesNothingAfterTheFirstStep) {
  constexpr int kMembers = 4;
  constexpr std::int64_t kFirst = 0xffffff00;  // passes 2^32 on the way
  run_members(kMembers, [&](int rank, Communicator& inner) {
    UncountedCommunicator communicator(inner);
    StepAgreement agreement(communicator, GroupView::initial(kMembers, rank));
    StepPlan plan;
    for (std::int64_t step = kFirst; step < kFirst + 600; ++step) {
      const Deadline deadline = hang_limit();
      const std::uint64_t before = testing::allocations_of_this_thread() - communicator.allocations();
      ASSERT_TRUE(agreement.start(proposal_of(step, rank)));
      ASSERT_TRUE(agreement.finish(plan, deadline));
      if (step != kFirst) {
        ASSERT_EQ(testing::allocations_of_this_thread() - communicator.allocations(), before);
      }
      std::vector<StepProposal> all;
      for (int member = 0; member < kMembers; ++member) {
        all.push_back(proposal_of(step, member));
      }
      StepPlan expected;
      ASSERT_TRUE(testing::decide_for(all, expected));
      ASSERT_EQ(plan.step, step);
      ASSERT_EQ(plan.tokens_per_member, expected.tokens_per_member);
      ASSERT_EQ(plan.action, expected.action);
      ASSERT_EQ(plan.micro_batches, expected.micro_batches);
      ASSERT_EQ(plan.graph_mode, expected.graph_mode);
    }
  });
}

TEST(StepAgreement, StopsEveryMemberWithinTheStepWhenOneDiffers) {
  std::mutex mutex;
  std::vector<std::string> messages;
  run_members(3, [&](int rank, Communicator& communicator) {
    StepAgreement agreement(communicator, GroupView::initial(3, rank));
    StepPlan plan;
    ASSERT_TRUE(agreement.start(proposal_of(1, rank)));
    ASSERT_TRUE(agreement.finish(plan, hang_limit()));
    ASSERT_TRUE(agreement.start(proposal_of(rank == 1 ? 3 : 2, rank)));
    const Status status = agreement.finish(plan, hang_limit());
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().rank, 1);
    EXPECT_EQ(plan.step, 1) << "the plan of the step before is untouched";
    const std::lock_guard lock(mutex);
    messages.push_back(status.error().message);
  });
  ASSERT_EQ(messages.size(), 3U);
  EXPECT_THAT(messages[0], HasSubstr("step differs: members 0, 2 have 2, member 1 has 3"));
  EXPECT_EQ(messages[0], messages[1]);
  EXPECT_EQ(messages[0], messages[2]);
}

TEST(StepAgreement, PassesOnThatAMemberIsLost) {
  LocalGroup group(2);
  const auto communicator = group.communicator(0);
  StepAgreement agreement(*communicator, GroupView::initial(2, 0));
  ASSERT_TRUE(agreement.start(proposal_of(1, 0)));
  group.mark_lost(1);
  StepPlan plan;
  const Status status = agreement.finish(plan, hang_limit());
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(status.error().rank, 1);
}

}  // namespace
}  // namespace lockstep::comm
