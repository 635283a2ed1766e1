// Goal    Who is in the group and who holds which expert: every expert has exactly one holder, evenly, at any ratio of members to experts.
// Method  Small sizes exhaustively, against the definitions.
#include "lockstep/comm/group.hpp"

#include <algorithm>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/comm/step_progress.hpp"

namespace lockstep::comm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(GroupView, InitialHasAscendingIdsAtEpochZero) {
  const GroupView view = GroupView::initial(4, 2);
  EXPECT_EQ(view.epoch, 0);
  EXPECT_THAT(view.members, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(view.size(), 4);
  EXPECT_EQ(view.my_id(), 2);
}

TEST(ParallelLayout, IsAcceptedWhenDataAndExpertSizesAreTheWorld) {
  EXPECT_TRUE((ParallelLayout{.dp = 3, .ep = 3, .tp = 1}.validate(3)));
}

TEST(ParallelLayout, IsRefusedWithItsValueAndTheWorldSizeWhenASizeDiffers) {
  const Status dp = ParallelLayout{.dp = 2, .ep = 3, .tp = 1}.validate(3);
  ASSERT_FALSE(dp);
  EXPECT_EQ(dp.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(dp.error().message, HasSubstr("data parallel size is 2, expected the world size 3"));
  const Status ep = ParallelLayout{.dp = 3, .ep = 1, .tp = 1}.validate(3);
  ASSERT_FALSE(ep);
  EXPECT_THAT(ep.error().message, HasSubstr("expert parallel size is 1, expected the world size 3"));
  const Status tp = ParallelLayout{.dp = 3, .ep = 3, .tp = 2}.validate(3);
  ASSERT_FALSE(tp);
  EXPECT_THAT(tp.error().message, HasSubstr("tensor parallel size is 2"));
}

TEST(Placement, DealsContiguousRunsWithTheRemainderToTheFirstMembers) {
  const Placement placement = Placement::contiguous(7, GroupView::initial(3, 0));
  EXPECT_EQ(placement.expert_count(), 7);
  EXPECT_THAT(placement.experts_of(0), ElementsAre(0, 1, 2));
  EXPECT_THAT(placement.experts_of(1), ElementsAre(3, 4));
  EXPECT_THAT(placement.experts_of(2), ElementsAre(5, 6));
}

TEST(Placement, LeavesTheLastMembersWithoutExpertsWhenThereAreMoreMembers) {
  const Placement placement = Placement::contiguous(3, GroupView::initial(5, 0));
  EXPECT_THAT(placement.experts_of(2), ElementsAre(2));
  EXPECT_THAT(placement.experts_of(3), IsEmpty());
  EXPECT_THAT(placement.experts_of(4), IsEmpty());
}

TEST(Placement, GivesEveryExpertOneHolderThatListsItAtItsLocalIndex) {
  for (int members = 1; members <= 9; ++members) {
    for (int experts = 1; experts <= 17; ++experts) {
      SCOPED_TRACE(std::to_string(experts) + " experts over " + std::to_string(members));
      const Placement placement = Placement::contiguous(experts, GroupView::initial(members, members - 1));
      std::size_t least = placement.experts_of(0).size();
      std::size_t most = least;
      int next = 0;
      for (int member = 0; member < members; ++member) {
        const auto held = placement.experts_of(member);
        least = std::min(least, held.size());
        most = std::max(most, held.size());
        for (std::size_t i = 0; i < held.size(); ++i) {
          EXPECT_EQ(held[i], next++);
          EXPECT_THAT(placement.holders(held[i]), ElementsAre(member));
          EXPECT_EQ(placement.local_index(held[i], member), static_cast<std::int32_t>(i));
          for (int source = 0; source < members; ++source) {
            EXPECT_EQ(placement.serving_member(held[i], source), member);
            if (source != member) {
              EXPECT_EQ(placement.local_index(held[i], source), -1);
            }
          }
        }
      }
      EXPECT_EQ(next, experts);
      EXPECT_LE(most - least, 1U);
    }
  }
}

TEST(Placement, HasNoLocalIndexForNumbersThatAreNoExperts) {
  const Placement placement = Placement::contiguous(4, GroupView::initial(2, 0));
  EXPECT_EQ(placement.local_index(-1, 0), -1);
  EXPECT_EQ(placement.local_index(4, 1), -1);
}

TEST(StepPhaseName, IsDifferentForEveryPhaseAndSaysSoWhenUnknown) {
  std::set<std::string_view> names;
  for (const StepPhase phase : {StepPhase::kStarting, StepPhase::kSleeping, StepPhase::kComputing, StepPhase::kAgreeing, StepPhase::kDispatching,
                                StepPhase::kCombining, StepPhase::kStopped}) {
    names.insert(step_phase_name(phase));
  }
  EXPECT_EQ(names.size(), 7U);
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_EQ(step_phase_name(static_cast<StepPhase>(77)), "unknown");
}

}  // namespace
}  // namespace lockstep::comm
