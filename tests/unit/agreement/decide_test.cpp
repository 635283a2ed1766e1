// Goal    decide() tells every plan from every divergence, names field, members and values, and works in large groups.
// Method  Columns as encode_proposal writes them, summed; then one thing at a time is made wrong: a guard on each member in turn, a bit of each word, a value
// that no
//         sound member writes (with a right checksum, as a broken peer would send it).
#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/comm/step_plan.hpp"
#include "tests/unit/agreement/matrices.hpp"

namespace lockstep::comm {
namespace {

using ::testing::AllOf;
using testing::cell;
using testing::decide_for;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::sum_of_columns;

std::vector<StepProposal> busy_group(std::size_t members) {
  std::vector<StepProposal> group(members);
  for (std::size_t i = 0; i < members; ++i) {
    const auto tokens = static_cast<std::int32_t>(i % 5);
    group[i] = {.step = 9,
                .epoch = 1,
                .config_hash = 0x0123456789abcdefULL,
                .tokens = tokens,
                .prefill_tokens = tokens / 2,
                .requests = tokens,
                .padded_tokens = tokens,
                .micro_batches = 2,
                .graph_mode = GraphMode::kPiecewise,
                .waiting = static_cast<std::int32_t>(i % 3),
                .free_kv_blocks = 100};
  }
  return group;
}

TEST(Decide, PlansTheStepFromAllMembersColumns) {
  std::vector<StepProposal> group = busy_group(4);  // 0, 1, 2, 3 tokens
  group[3].padded_tokens = 8;
  group[2].graph_mode = GraphMode::kFull;
  StepPlan plan;
  ASSERT_TRUE(decide_for(group, plan));
  EXPECT_EQ(plan.action, StepAction::kRun);
  EXPECT_EQ(plan.step, 9);
  EXPECT_THAT(plan.tokens_per_member, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(plan.padded_tokens, 8);
  EXPECT_EQ(plan.micro_batches, 2);
  EXPECT_EQ(plan.micro_batch_tokens, 2);
  EXPECT_EQ(plan.graph_mode, GraphMode::kPiecewise);
  EXPECT_FALSE(plan.draining);
  EXPECT_EQ(plan.waiting_total, 3);
  EXPECT_EQ(plan.prefill_tokens_total, 2);
  EXPECT_EQ(plan.requests_total, 6);
}

TEST(Decide, NamesWhoCameLastOnlyWhereOthersWaitedForIt) {
  struct Case {
    std::vector<std::int32_t> waited_us;
    int late;
  };
  for (const Case& example : std::vector<Case>{{{900, 30, 880}, 1},
                                               {{5, 5 + kLateUs, 5}, 0},  // two came late: the first of them stands for both
                                               {{5, 4 + kLateUs, 5}, -1},
                                               {{0, 0, 0}, -1},
                                               {{700}, -1},
                                               {{std::numeric_limits<std::int32_t>::max(), 0}, 1}}) {
    std::vector<StepProposal> group = busy_group(example.waited_us.size());
    for (std::size_t i = 0; i < group.size(); ++i) {
      group[i].waited_us = example.waited_us[i];
    }
    StepPlan plan;
    ASSERT_TRUE(decide_for(group, plan));
    EXPECT_EQ(plan.late_member, example.late) << ::testing::PrintToString(example.waited_us);
  }
}

TEST(Decide, TellsHowEvenlyTheKvCachesAreFilled) {
  std::vector<StepProposal> group = busy_group(4);
  StepPlan plan;
  ASSERT_TRUE(decide_for(group, plan));
  EXPECT_EQ(plan.kv_balance, 1.0) << "nothing is used";
  group[1].used_kv_blocks = 40;
  group[2].used_kv_blocks = 20;
  ASSERT_TRUE(decide_for(group, plan));
  EXPECT_EQ(plan.kv_balance, 0.375);
  for (StepProposal& member : group) {
    member.used_kv_blocks = 7;
  }
  ASSERT_TRUE(decide_for(group, plan));
  EXPECT_EQ(plan.kv_balance, 1.0);
}

TEST(Decide, KeepsRunningWhileADrainIsWishedAndRowsRemain) {
  std::vector<StepProposal> group = busy_group(3);
  group[0].wish = ControlWish::kDrain;  // the member without rows
  StepPlan plan;
  ASSERT_TRUE(decide_for(group, plan));
  EXPECT_EQ(plan.action, StepAction::kRun);
  EXPECT_TRUE(plan.draining);
}

TEST(Decide, StopsADrainOnlyOnceEveryMemberWishesItAndNothingIsLeft) {
  std::vector<StepProposal> group(3, StepProposal{.step = 4});
  StepPlan plan;
  group[1].wish = ControlWish::kDrain;
  ASSERT_TRUE(decide_for(group, plan));
  EXPECT_EQ(plan.action, StepAction::kSpin);  // another member may have accepted a request since it wrote its column
  EXPECT_TRUE(plan.draining);
  group[0].wish = group[2].wish = ControlWish::kDrain;
  group[0].waiting = 1;
  ASSERT_TRUE(decide_for(group, plan));
  EXPECT_EQ(plan.action, StepAction::kSpin);
  group[0].waiting = 0;
  ASSERT_TRUE(decide_for(group, plan));
  EXPECT_EQ(plan.action, StepAction::kStop);
}

TEST(Decide, CarriesStepsBeyondThirtyTwoBits) {
  for (const std::int64_t step :
       {std::int64_t{0x7fffffff}, std::int64_t{0x80000000}, std::int64_t{0xffffffff}, std::int64_t{0x100000000}, std::int64_t{1} << 62}) {
    std::vector<StepProposal> group = busy_group(3);
    for (StepProposal& member : group) {
      member.step = step;
    }
    StepPlan plan;
    ASSERT_TRUE(decide_for(group, plan));
    EXPECT_EQ(plan.step, step);
  }
}

TEST(Decide, NoticesStepsThatDifferInTheUpperWordOnly) {
  std::vector<StepProposal> group = busy_group(3);
  group[1].step += std::int64_t{1} << 32;
  StepPlan plan;
  const Status status = decide_for(group, plan);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("step differs: members 0, 2 have 9, member 1 has 4294967305"));
  EXPECT_EQ(status.error().rank, 1);
}

TEST(Decide, NamesTheGuardAndTheMemberAndItsValueWhenOneMemberDiffers) {
  constexpr std::size_t kMembers = 4;
  for (std::size_t odd = 0; odd < kMembers; ++odd) {
    struct Case {
      const char* field;
      const char* value;
      void (*change)(StepProposal&);
    };
    for (const Case& change : {Case{"step", "10", [](StepProposal& p) { p.step = 10; }}, Case{"epoch", "-3", [](StepProposal& p) { p.epoch = -3; }},
                               Case{"config_hash", "0x0123456789abcdee", [](StepProposal& p) { p.config_hash ^= 1U; }},
                               Case{"config_hash", "0x8123456789abcdef", [](StepProposal& p) { p.config_hash ^= 1ULL << 63U; }}}) {
      std::vector<StepProposal> group = busy_group(kMembers);
      change.change(group[odd]);
      StepPlan plan;
      const Status status = decide_for(group, plan);
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
      EXPECT_EQ(status.error().rank, static_cast<int>(odd));
      EXPECT_THAT(status.error().message, HasSubstr(std::string(change.field) + " differs: members "));
      EXPECT_THAT(status.error().message, HasSubstr("member " + std::to_string(odd) + " has " + change.value + ";"));
    }
  }
}

TEST(Decide, GroupsTheMembersByValueWhenAHashDiffers) {
  std::vector<StepProposal> group = busy_group(4);
  group[1].config_hash = 0xabc;
  StepPlan plan;
  const Status status = decide_for(group, plan);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("config_hash differs: members 0, 2, 3 have 0x0123456789abcdef, member 1 has 0x0000000000000abc"));
}

TEST(Decide, BlamesNobodyWhenHalfOfTheMembersDiffer) {
  std::vector<StepProposal> group = busy_group(2);
  group[1].epoch = 5;
  StepPlan plan;
  const Status status = decide_for(group, plan);
  ASSERT_FALSE(status);
  EXPECT_FALSE(status.error().rank.has_value());
  EXPECT_THAT(status.error().message, HasSubstr("epoch differs: member 0 has 1, member 1 has 5"));
}

TEST(Decide, NoticesEveryFlippedBitOfEveryWordAndLeavesThePlanAlone) {
  constexpr std::size_t kMembers = 3;
  const std::vector<std::int32_t> sound = sum_of_columns(busy_group(kMembers));
  StepPlan plan;
  plan.step = 77;
  for (std::size_t field = 0; field < kStepFieldCount; ++field) {
    for (std::size_t member = 0; member < kMembers; ++member) {
      for (unsigned bit = 0; bit < 32; ++bit) {
        std::vector<std::int32_t> matrix = sound;
        std::int32_t& word = matrix[field * kMembers + member];
        word = static_cast<std::int32_t>(static_cast<std::uint32_t>(word) ^ (1U << bit));
        const Status status = decide(matrix, kMembers, plan);
        ASSERT_FALSE(status) << step_field_name(static_cast<StepField>(field)) << " bit " << bit;
        EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
        EXPECT_EQ(status.error().rank, static_cast<int>(member)) << status.error().message;
        EXPECT_THAT(status.error().message, HasSubstr("checksum"));
        EXPECT_THAT(status.error().message, HasSubstr("member " + std::to_string(member)));
        EXPECT_EQ(plan.step, 77);
        EXPECT_TRUE(plan.tokens_per_member.empty());
      }
    }
  }
}

TEST(Decide, NoticesAMemberThatWroteNothing) {
  std::vector<StepProposal> group(3);  // guards zero, as in an empty column
  std::vector<std::int32_t> matrix = sum_of_columns(group);
  for (std::size_t field = 0; field < kStepFieldCount; ++field) {
    matrix[field * 3 + 2] = 0;
  }
  StepPlan plan;
  const Status status = decide(matrix, 3, plan);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().rank, 2);
}

TEST(Decide, NoticesTwoMembersInEachOthersColumns) {
  std::vector<StepProposal> group = busy_group(3);
  std::vector<std::int32_t> matrix = sum_of_columns(group);
  for (std::size_t field = 0; field < kStepFieldCount; ++field) {
    std::swap(matrix[field * 3], matrix[field * 3 + 1]);
  }
  StepPlan plan;
  ASSERT_FALSE(decide(matrix, 3, plan));
}

TEST(Decide, NamesFieldMemberAndValueWhenAMemberWritesWhatNoSoundOneDoes) {
  struct Case {
    const char* expected;
    void (*change)(StepProposal&);
  };
  const std::vector<Case> cases{
      {"tokens of member 2 is -1, expected at least 0", [](StepProposal& p) { p.tokens = -1; }},
      {"prefill_tokens of member 2 is -5, expected at least 0", [](StepProposal& p) { p.prefill_tokens = -5; }},
      {"prefill_tokens of member 2 is 3, expected at most its 2 tokens", [](StepProposal& p) { p.prefill_tokens = 3; }},
      {"requests of member 2 is -1", [](StepProposal& p) { p.requests = -1; }},
      {"padded_tokens of member 2 is -1", [](StepProposal& p) { p.padded_tokens = -1; }},
      {"micro_batches of member 2 is 0, expected at least 1", [](StepProposal& p) { p.micro_batches = 0; }},
      {"graph_mode of member 2 is 3, expected 0 to 2", [](StepProposal& p) { p.graph_mode = static_cast<GraphMode>(3); }},
      {"graph_mode of member 2 is -1, expected 0 to 2", [](StepProposal& p) { p.graph_mode = static_cast<GraphMode>(-1); }},
      {"waiting of member 2 is -2147483648", [](StepProposal& p) { p.waiting = std::numeric_limits<std::int32_t>::min(); }},
      {"free_kv_blocks of member 2 is -1", [](StepProposal& p) { p.free_kv_blocks = -1; }},
      {"used_kv_blocks of member 2 is -1", [](StepProposal& p) { p.used_kv_blocks = -1; }},
      {"waited_us of member 2 is -7", [](StepProposal& p) { p.waited_us = -7; }},
      {"wish of member 2 is 3, expected 0 to 2", [](StepProposal& p) { p.wish = static_cast<ControlWish>(3); }},
      {"wish of member 2 is -1, expected 0 to 2", [](StepProposal& p) { p.wish = static_cast<ControlWish>(-1); }},
      {"member 2 has 2147483647", [](StepProposal& p) { p.tokens = std::numeric_limits<std::int32_t>::max(); }},
  };
  for (const Case& change : cases) {
    std::vector<StepProposal> group = busy_group(3);
    change.change(group[2]);
    StepPlan plan;
    const Status status = decide_for(group, plan);
    ASSERT_FALSE(status) << change.expected;
    EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
    EXPECT_EQ(status.error().rank, 2);
    EXPECT_THAT(status.error().message, HasSubstr(change.expected));
  }
}

TEST(Decide, WorksAtFourThousandMembersAndFindsTheOneThatDiffers) {
  constexpr std::size_t kMembers = 4096;
  std::vector<std::int32_t> matrix(kStepFieldCount * kMembers, 0);
  std::vector<std::int32_t> small(kStepFieldCount * kMembers);
  std::vector<StepProposal> group = busy_group(kMembers);
  group[4000].padded_tokens = 64;
  // The all-reduce's sum, without its 4,096 matrices of 60,000 words: a member's column is the only part that is not zero.
  for (std::size_t member = 0; member < kMembers; ++member) {
    encode_proposal(group[member], static_cast<int>(member), static_cast<int>(kMembers), small);
    for (std::size_t field = 0; field < kStepFieldCount; ++field) {
      matrix[field * kMembers + member] = small[field * kMembers + member];
    }
  }
  StepPlan plan;
  ASSERT_TRUE(decide(matrix, static_cast<int>(kMembers), plan));
  EXPECT_EQ(plan.action, StepAction::kRun);
  EXPECT_EQ(plan.tokens_per_member.size(), kMembers);
  EXPECT_EQ(plan.padded_tokens, 64);
  EXPECT_EQ(plan.micro_batch_tokens, 2);

  group[3333].epoch = 8;
  encode_proposal(group[3333], 3333, static_cast<int>(kMembers), small);
  for (std::size_t field = 0; field < kStepFieldCount; ++field) {
    matrix[cell(static_cast<StepField>(field), 3333, kMembers)] = small[cell(static_cast<StepField>(field), 3333, kMembers)];
  }
  const Status status = decide(matrix, static_cast<int>(kMembers), plan);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().rank, 3333);
  EXPECT_THAT(status.error().message, HasSubstr("epoch differs: members 0-3332, 3334-4095 have 1, member 3333 has 8"));
}

TEST(Decide, EqualsItselfUnderRandomMatrices) {
  // Purity: the same matrix gives the same answer whatever was decided before it, garbage included.
  std::mt19937 random(20240611);
  std::uniform_int_distribution<std::int32_t> word(-2, 3);
  StepPlan reused;
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::int32_t> matrix = sum_of_columns(busy_group(3));
    const std::size_t changes = random() % 3;
    for (std::size_t i = 0; i < changes; ++i) {
      matrix[random() % matrix.size()] = word(random);
    }
    StepPlan fresh;
    const Status a = decide(matrix, 3, reused);
    const Status b = decide(matrix, 3, fresh);
    ASSERT_EQ(a.has_value(), b.has_value());
    if (a) {
      ASSERT_EQ(reused.tokens_per_member, fresh.tokens_per_member);
      ASSERT_EQ(reused.action, fresh.action);
    } else {
      ASSERT_EQ(a.error().message, b.error().message);
    }
  }
}

TEST(EncodeProposal, WritesOnlyItsOwnColumn) {
  std::vector<std::int32_t> matrix(kStepFieldCount * 3, 99);
  encode_proposal(busy_group(3)[2], 1, 3, matrix);
  for (std::size_t field = 0; field < kStepFieldCount; ++field) {
    EXPECT_EQ(matrix[field * 3], 0);
    EXPECT_EQ(matrix[field * 3 + 2], 0);
  }
  EXPECT_EQ(matrix[cell(StepField::kStepLow, 1, 3)], 9);
  EXPECT_EQ(matrix[cell(StepField::kTokens, 1, 3)], 2);
}

TEST(StepFieldName, IsDifferentForEveryField) {
  std::vector<std::string_view> names;
  for (std::size_t field = 0; field < kStepFieldCount; ++field) {
    names.push_back(step_field_name(static_cast<StepField>(field)));
  }
  EXPECT_EQ(names[static_cast<std::size_t>(StepField::kWaiting)], "waiting");
  EXPECT_EQ(names.back(), "checksum");
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
  EXPECT_EQ(step_field_name(StepField::kCount), "unknown");
}

}  // namespace
}  // namespace lockstep::comm
