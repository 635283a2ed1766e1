// Goal    Who gives blocks up, when, and how it comes back.
// Method  A planner over caches of a few blocks, driven step by step; a token's id tells its position in the prompt, and 7 is whatever was generated.
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/batch/batch_planner.hpp"
#include "tests/unit/scheduler/scheduler_fixtures.hpp"

namespace lockstep::scheduler {
namespace {

using ::testing::ElementsAre;
using testing::HeapDevice;
using ::testing::IsEmpty;
using testing::make_cache;
using testing::make_sequence;

constexpr TimePoint kNow{std::chrono::hours(1)};

class PreemptionTest : public ::testing::Test {
 protected:
  void make(std::int32_t blocks) {
    cache_.emplace_back(make_cache(device_, blocks));
    planner_ = std::make_unique<BatchPlanner>(BatchLimits{.sequences_max = 4, .tokens_max = 128, .blocks_per_table = 8}, cache_.back());
  }
  void plan(StepBatch& batch) { planner_->plan(kNow, {.tokens = 64}, batch); }
  void plan() { plan(batch_); }
  void complete(const StepBatch& batch) {
    for (const StepBatch::Entry& entry : batch.entries) {
      entry.sequence->complete(entry.rows, entry.samples);
      if (entry.samples && !entry.sequence->ended) {
        entry.sequence->tokens.push_back(7);
        if (entry.sequence->generated() == entry.sequence->request.max_tokens) {
          EXPECT_NE(planner_->remove(entry.sequence->request.id), nullptr);
        }
      }
    }
    planner_->free_removed();
  }
  void step() {
    plan();
    complete(batch_);
  }
  /// Until something was preempted; its batch is planned and not computed.
  void run_until_preemption() {
    for (int steps = 0; steps < 200; ++steps) {
      plan();
      if (planner_->preemptions() > 0) {
        return;
      }
      complete(batch_);
    }
    FAIL() << "nothing was preempted";
  }
  void end(RequestId id) {
    ASSERT_NE(planner_->remove(id), nullptr);
    planner_->free_removed();
  }
  static std::vector<RequestId> ids(const StepBatch& batch) {
    std::vector<RequestId> result;
    for (const StepBatch::Entry& entry : batch.entries) {
      result.push_back(entry.sequence->request.id);
    }
    return result;
  }
  std::int32_t free_count() const { return cache_.back().free_count(); }

  HeapDevice device_;
  std::vector<KvCache> cache_;
  std::unique_ptr<BatchPlanner> planner_;
  StepBatch batch_;
};

TEST_F(PreemptionTest, TheNewestGivesItsBlocksToTheOldestAndIsComputedAgainLikeAPrompt) {
  make(5);
  planner_->add(make_sequence(1, 32, 24));  // 4 blocks at last
  planner_->add(make_sequence(2, 16, 40));  // 4 too
  step();
  EXPECT_THAT(ids(batch_), ElementsAre(1, 2));
  run_until_preemption();
  EXPECT_THAT(ids(batch_), ElementsAre(1));
  EXPECT_EQ(batch_.positions, std::vector<std::int32_t>{48});
  EXPECT_EQ(batch_.waiting, 1);
  EXPECT_EQ(planner_->waiting_count(), 1);
  EXPECT_EQ(free_count(), 1);
  complete(batch_);
  step();
  EXPECT_THAT(ids(batch_), ElementsAre(1)) << "3 blocks are not free";
  end(1);
  plan();
  ASSERT_THAT(ids(batch_), ElementsAre(2));
  const StepBatch::Entry& entry = batch_.entries.front();
  ASSERT_EQ(entry.rows, 33) << "its prompt, and 17 tokens that it had generated";
  for (std::int32_t i = 0; i < entry.rows; ++i) {
    EXPECT_EQ(batch_.positions[static_cast<std::size_t>(i)], i);
    EXPECT_EQ(batch_.token_ids[static_cast<std::size_t>(i)], i < 16 ? 100 + i : 7);
  }
  EXPECT_EQ(batch_.prefill_tokens, 33);
  EXPECT_THAT(batch_.sample_rows, ElementsAre(32));
  EXPECT_FALSE(entry.is_late);
  EXPECT_EQ(entry.sequence->prompt_tokens, 16);
  EXPECT_EQ(entry.sequence->generated(), 17);
  complete(batch_);
  plan();
  EXPECT_THAT(batch_.positions, ElementsAre(33));
  EXPECT_EQ(batch_.prefill_tokens, 0);
  EXPECT_EQ(planner_->preemptions(), 1);
}

TEST_F(PreemptionTest, WhoWasPreemptedComesBackBeforeWhatNeverRan) {
  make(7);
  for (RequestId id = 1; id <= 2; ++id) {
    planner_->add(make_sequence(id, 32, 60));
  }
  step();
  planner_->add(make_sequence(3, 16, 40));
  run_until_preemption();
  EXPECT_THAT(ids(batch_), ElementsAre(1)) << "the third would fit, but the second is before it";
  complete(batch_);
  end(1);
  plan();
  EXPECT_THAT(ids(batch_), ElementsAre(2, 3));
}

TEST_F(PreemptionTest, TheNewestItselfGivesWayWhenItIsTheOneThatNeedsABlock) {
  make(6);
  planner_->add(make_sequence(1, 20, 40));  // wants its third block for row 32, its fourth for row 48
  planner_->add(make_sequence(2, 25, 40));  // gets to both five steps earlier
  run_until_preemption();
  EXPECT_THAT(ids(batch_), ElementsAre(1));
  EXPECT_THAT(batch_.positions, ElementsAre(43));
  EXPECT_EQ(batch_.waiting, 1);
  EXPECT_EQ(free_count(), 3);
  complete(batch_);
  end(1);
  plan();
  EXPECT_THAT(ids(batch_), ElementsAre(2));
  EXPECT_EQ(batch_.rows(), 49);
}

TEST_F(PreemptionTest, ANewcomerLeavesABlockToEachThatMayGrow) {
  make(4);
  planner_->add(make_sequence(1, 16, 40));
  planner_->add(make_sequence(2, 16, 40));
  plan();
  EXPECT_THAT(ids(batch_), ElementsAre(1, 2));
  make(3);
  planner_->add(make_sequence(1, 16, 30));
  planner_->add(make_sequence(2, 16, 30));
  plan();
  EXPECT_THAT(ids(batch_), ElementsAre(1)) << "one block for it, and two for both to grow, are not free";
  make(3);
  planner_->add(make_sequence(1, 16, 30));
  planner_->add(make_sequence(2, 16, 1));
  plan();
  EXPECT_THAT(ids(batch_), ElementsAre(1, 2)) << "the second will never want more";
  make(3);
  planner_->add(make_sequence(1, 48, 1));
  plan();
  EXPECT_THAT(ids(batch_), ElementsAre(1)) << "alone it may have everything";
}

TEST_F(PreemptionTest, UnderABatchAheadBlocksComeFreeOnlyWhenItsRowsAreComputed) {
  make(5);
  planner_->add(make_sequence(1, 32, 24));
  planner_->add(make_sequence(2, 16, 40));
  StepBatch under_way;
  plan(under_way);
  for (int steps = 0; planner_->preemptions() == 0; ++steps) {
    ASSERT_LT(steps, 200) << "nothing was preempted";
    plan();  // while `under_way` is not computed
    complete(under_way);
    BatchPlanner::fill_late_tokens(batch_);
    std::swap(batch_, under_way);
  }
  EXPECT_THAT(ids(under_way), IsEmpty()) << "the second has rows under way, and the first waits for its blocks";
  EXPECT_EQ(under_way.waiting, 2);
  EXPECT_EQ(planner_->preemptions(), 1);
  plan();
  EXPECT_THAT(ids(batch_), ElementsAre(1));
  EXPECT_EQ(free_count(), 1);
  complete(under_way);
  complete(batch_);
  end(1);
  plan();
  ASSERT_THAT(ids(batch_), ElementsAre(2));
  EXPECT_EQ(batch_.rows(), 33) << "the token that was under way is not lost";
}

TEST_F(PreemptionTest, BlocksOfWhatHasEndedOrWillAreWaitedForRatherThanTaken) {
  for (const bool cancelled : {true, false}) {
    make(4);
    planner_->add(make_sequence(1, 16, 40));
    planner_->add(make_sequence(2, 16, 17));  // its row 31 gives its last token
    for (int row = 15; row < 31; ++row) {
      step();
    }
    StepBatch under_way;
    plan(under_way);
    EXPECT_THAT(ids(under_way), ElementsAre(1, 2));
    EXPECT_EQ(free_count(), 0);
    if (cancelled) {
      EXPECT_NE(planner_->remove(2), nullptr);
    }
    plan();  // the first would have its row 32
    EXPECT_THAT(ids(batch_), IsEmpty());
    EXPECT_EQ(batch_.waiting, 1);
    complete(under_way);
    plan();
    EXPECT_THAT(batch_.positions, ElementsAre(32));
    EXPECT_EQ(planner_->preemptions(), 0);
  }
}

TEST_F(PreemptionTest, ARequestThatIsCancelledWhileItWaitsToComeBackIsGone) {
  make(5);
  planner_->add(make_sequence(1, 32, 24));
  planner_->add(make_sequence(2, 16, 40));
  run_until_preemption();
  complete(batch_);
  end(2);
  EXPECT_EQ(planner_->waiting_count(), 0);
  end(1);
  EXPECT_EQ(free_count(), 5);
}

TEST_F(PreemptionTest, SumsOfHiddenStatesBeginAgain) {
  Sequence sequence;
  sequence.tokens = {1, 2, 3};
  sequence.prompt_tokens = 2;
  sequence.prefill_tokens = 2;
  sequence.planned = 3;
  sequence.computed = 3;
  sequence.pooled = {1.0F, 2.0F};
  sequence.request.max_tokens = 9;
  sequence.restart();
  EXPECT_THAT(sequence.pooled, ElementsAre(0.0F, 0.0F));
  EXPECT_EQ(sequence.prefill_tokens, 3);
  EXPECT_EQ(sequence.pending(), 3);
  EXPECT_EQ(sequence.generated(), 1);
}

}  // namespace
}  // namespace lockstep::scheduler
