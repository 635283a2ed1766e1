// Goal    decide() is right for every combination of what the members of a small group can say.
// Method  All combinations for 1 to 3 members against a second implementation, written from the rules in words; and that exchanging members exchanges nothing
// but
//         their token counts. The plan object is reused throughout, as the engine does, so state left over from the plan before would show.
#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/comm/step_plan.hpp"
#include "tests/unit/agreement/matrices.hpp"

namespace lockstep::comm {
namespace {

using testing::cell;

StepPlan reference(const std::vector<StepProposal>& members) {
  StepPlan plan;
  plan.step = members[0].step;
  std::set<std::int32_t> modes;
  std::multiset<std::int32_t> splits;  // of the members with rows
  bool stop = false;
  std::size_t drainers = 0;
  for (const StepProposal& member : members) {
    plan.tokens_per_member.push_back(member.tokens);
    plan.padded_tokens = std::max(plan.padded_tokens, member.padded_tokens);
    plan.waiting_total += member.waiting;
    plan.prefill_tokens_total += member.prefill_tokens;
    plan.requests_total += member.requests;
    modes.insert(static_cast<std::int32_t>(member.graph_mode));
    plan.draining = plan.draining || member.wish != ControlWish::kNone;
    stop = stop || member.wish == ControlWish::kStop;
    drainers += member.wish == ControlWish::kNone ? 0 : 1;
    if (member.tokens != 0) {
      splits.insert(member.micro_batches);
    }
  }
  plan.graph_mode = static_cast<GraphMode>(*modes.begin());
  const std::int32_t longest = *std::max_element(plan.tokens_per_member.begin(), plan.tokens_per_member.end());
  plan.micro_batches = splits.empty() ? 1 : std::min(*splits.begin(), longest);
  while (plan.micro_batch_tokens * plan.micro_batches < longest) {
    ++plan.micro_batch_tokens;
  }
  if (stop) {
    plan.action = StepAction::kStop;
  } else if (!splits.empty()) {
    plan.action = StepAction::kRun;
  } else if (drainers == members.size() && plan.waiting_total == 0) {
    plan.action = StepAction::kStop;  // all have closed their admission, and all are empty
  } else {
    plan.action = plan.waiting_total != 0 || drainers != 0 ? StepAction::kSpin : StepAction::kSleep;
  }
  return plan;
}

bool same(const StepPlan& a, const StepPlan& b) {
  return a.action == b.action && a.step == b.step && a.tokens_per_member == b.tokens_per_member && a.padded_tokens == b.padded_tokens &&
         a.micro_batches == b.micro_batches && a.micro_batch_tokens == b.micro_batch_tokens && a.graph_mode == b.graph_mode && a.draining == b.draining &&
         a.waiting_total == b.waiting_total && a.prefill_tokens_total == b.prefill_tokens_total && a.requests_total == b.requests_total;
}

struct Choices {
  std::vector<std::int32_t> tokens{0, 1, 3};
  std::vector<std::int32_t> waiting{0, 2};
  std::vector<ControlWish> wishes{ControlWish::kNone, ControlWish::kDrain, ControlWish::kStop};
  std::vector<std::int32_t> micro_batches{1, 2};
  std::vector<GraphMode> modes{GraphMode::kNone, GraphMode::kFull};
};

std::vector<StepProposal> all_proposals(const Choices& choices) {
  std::vector<StepProposal> result;
  for (const std::int32_t tokens : choices.tokens) {
    for (const std::int32_t waiting : choices.waiting) {
      for (const ControlWish wish : choices.wishes) {
        for (const std::int32_t micro_batches : choices.micro_batches) {
          for (const GraphMode mode : choices.modes) {
            result.push_back({.step = 41,
                              .epoch = 2,
                              .config_hash = 0xfeedfacecafef00dULL,
                              .tokens = tokens,
                              .prefill_tokens = tokens / 2,
                              .requests = tokens > 0 ? 1 : 0,
                              .padded_tokens = (tokens + 3) / 4 * 4,
                              .micro_batches = micro_batches,
                              .graph_mode = mode,
                              .waiting = waiting,
                              .free_kv_blocks = 7,
                              .wish = wish});
          }
        }
      }
    }
  }
  return result;
}

/// Columns encoded once per place: encoding each combination anew would take most of the time.
std::vector<std::vector<std::int32_t>> encoded(const std::vector<StepProposal>& proposals, int member, int members) {
  std::vector<std::vector<std::int32_t>> result(proposals.size(), std::vector<std::int32_t>(kStepFieldCount * static_cast<std::size_t>(members)));
  for (std::size_t i = 0; i < proposals.size(); ++i) {
    encode_proposal(proposals[i], member, members, result[i]);
  }
  return result;
}

/// Every combination of `members` proposals; returns how many there were, and stops at the first difference.
std::size_t compare_all(const std::vector<StepProposal>& proposals, int members) {
  std::vector<std::vector<std::vector<std::int32_t>>> columns;
  for (int member = 0; member < members; ++member) {
    columns.push_back(encoded(proposals, member, members));
  }
  const auto count = static_cast<std::size_t>(members);
  std::vector<std::size_t> chosen(count, 0);
  std::vector<std::int32_t> matrix(kStepFieldCount * count);
  std::vector<StepProposal> group(count);
  StepPlan plan;
  std::size_t combinations = 0;
  while (true) {
    std::fill(matrix.begin(), matrix.end(), 0);
    for (std::size_t member = 0; member < count; ++member) {
      group[member] = proposals[chosen[member]];
      for (std::size_t i = 0; i < matrix.size(); ++i) {
        matrix[i] += columns[member][chosen[member]][i];
      }
    }
    ++combinations;
    const Status status = decide(matrix, members, plan);
    if (!status || !same(plan, reference(group))) {
      ADD_FAILURE() << "combination " << combinations << " of " << members << " members: " << (status ? "another plan" : status.error().message);
      return combinations;
    }
    std::size_t digit = 0;
    while (digit < count && ++chosen[digit] == proposals.size()) {
      chosen[digit++] = 0;
    }
    if (digit == count) {
      return combinations;
    }
  }
}

TEST(DecideExhaustively, EqualsTheRulesForEveryCombinationOfThreeMembers) {
  EXPECT_EQ(compare_all(all_proposals(Choices{}), 3), 72U * 72U * 72U);
}

TEST(DecideExhaustively, EqualsTheRulesForEveryCombinationOfTwoMembersWithMoreValues) {
  Choices choices;
  choices.tokens = {0, 1, 2, 5, 1000};
  choices.micro_batches = {1, 2, 3, 7};
  choices.modes = {GraphMode::kNone, GraphMode::kPiecewise, GraphMode::kFull};
  EXPECT_EQ(compare_all(all_proposals(choices), 2), 360U * 360U);
}

TEST(DecideExhaustively, EqualsTheRulesForOneMember) {
  EXPECT_EQ(compare_all(all_proposals(Choices{}), 1), 72U);
}

TEST(DecideExhaustively, GivesTheSamePlanWithMovedTokenCountsWhenMembersChangePlaces) {
  Choices choices;
  choices.wishes = {ControlWish::kNone, ControlWish::kDrain};
  choices.waiting = {0, 1};
  choices.tokens = {0, 3};
  const std::vector<StepProposal> proposals = all_proposals(choices);
  std::size_t combinations = 0;
  for (const StepProposal& a : proposals) {
    for (const StepProposal& b : proposals) {
      for (const StepProposal& c : proposals) {
        std::array<int, 3> order{0, 1, 2};
        StepPlan first;
        ASSERT_TRUE(testing::decide_for({a, b, c}, first));
        while (std::next_permutation(order.begin(), order.end())) {
          const std::array<const StepProposal*, 3> members{&a, &b, &c};
          StepPlan moved;
          ASSERT_TRUE(testing::decide_for({*members[order[0]], *members[order[1]], *members[order[2]]}, moved));
          for (std::size_t i = 0; i < 3; ++i) {
            ASSERT_EQ(moved.tokens_per_member[i], first.tokens_per_member[static_cast<std::size_t>(order[i])]);
          }
          moved.tokens_per_member = first.tokens_per_member;
          ASSERT_TRUE(same(moved, first));
          ++combinations;
        }
      }
    }
  }
  EXPECT_EQ(combinations, 32U * 32U * 32U * 5U);
}

}  // namespace
}  // namespace lockstep::comm
