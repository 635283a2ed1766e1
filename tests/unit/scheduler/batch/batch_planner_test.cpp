// Goal    The planner's rules one by one: budget, decode before prompts, order of admission, chunks, sample rows, block tables, removal.
// Method  Small caches and budgets where the whole batch can be written down; `complete` does to the sequences what the engine does after a step.
#include "scheduler/batch/batch_planner.hpp"

#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/scheduler_fixtures.hpp"

namespace lockstep::scheduler {
namespace {

using ::testing::ElementsAre;
using testing::HeapDevice;
using ::testing::IsEmpty;
using testing::make_cache;
using testing::make_sequence;

constexpr TimePoint kNow{std::chrono::hours(1)};
constexpr std::int32_t kPromptTokens = 64;  // beside streams

class BatchPlannerTest : public ::testing::Test {
 protected:
  void make(const BatchLimits& limits, std::int32_t blocks) {
    cache_.emplace_back(make_cache(device_, blocks));
    planner_ = std::make_unique<BatchPlanner>(limits, cache_.back());
  }
  /// Plans, and checks that the batch's parts fit each other.
  const StepBatch& plan(std::int64_t streams_elsewhere = 0, std::int64_t prompts_elsewhere = 0) {
    planner_->plan(kNow, {.streams_elsewhere = streams_elsewhere, .prompts_elsewhere = prompts_elsewhere, .tokens = kPromptTokens}, batch_);
    std::int32_t row = 0;
    for (const StepBatch::Entry& entry : batch_.entries) {
      EXPECT_EQ(entry.first_row, row);
      EXPECT_GT(entry.rows, 0);
      row += entry.rows;
    }
    EXPECT_EQ(batch_.rows(), row);
    EXPECT_EQ(std::ssize(batch_.positions), row);
    EXPECT_EQ(std::ssize(batch_.sequences), row);
    EXPECT_EQ(std::ssize(batch_.block_tables), std::ssize(batch_.entries) * batch_.blocks_per_table);
    return batch_;
  }
  /// What the engine does after the step: all rows are in the cache, samplers get a token (7).
  void complete() { complete(batch_); }
  static void complete(const StepBatch& batch) {
    for (const StepBatch::Entry& entry : batch.entries) {
      entry.sequence->complete(entry.rows, entry.samples);
      if (entry.samples && !entry.sequence->ended) {
        entry.sequence->tokens.push_back(7);
      }
    }
  }
  /// False when it is unknown.
  bool remove(RequestId id) {
    const bool found = planner_->remove(id) != nullptr;
    planner_->free_removed();
    return found;
  }
  std::vector<RequestId> ids() const {
    std::vector<RequestId> result;
    for (const StepBatch::Entry& entry : batch_.entries) {
      result.push_back(entry.sequence->request.id);
    }
    return result;
  }
  /// Sequences 1 to `count`, past their prompts.
  void add_streams(std::int32_t count) {
    for (std::int32_t i = 1; i <= count; ++i) {
      planner_->add(make_sequence(static_cast<RequestId>(i), 8, 80));
    }
    plan();
    complete();
  }
  KvCache& cache() { return cache_.back(); }

  HeapDevice device_;
  std::vector<KvCache> cache_;
  std::unique_ptr<BatchPlanner> planner_;
  StepBatch batch_;
};

TEST_F(BatchPlannerTest, PlansNothingWhenThereIsNothing) {
  make({.sequences_max = 4, .tokens_max = 8, .blocks_per_table = 2}, 4);
  EXPECT_EQ(plan().rows(), 0);
  EXPECT_EQ(batch_.prefill_tokens, 0);
  EXPECT_EQ(batch_.blocks_per_table, 2);
  EXPECT_EQ(planner_->remove(1), nullptr);
  EXPECT_EQ(planner_->remove_any(), nullptr);
}

TEST_F(BatchPlannerTest, AWholePromptFitsOneStepAndItsLastRowSamples) {
  make({.sequences_max = 4, .tokens_max = 8, .blocks_per_table = 2}, 4);
  planner_->add(make_sequence(1, 3, 4));
  plan();
  EXPECT_THAT(batch_.token_ids, ElementsAre(100, 101, 102));
  EXPECT_THAT(batch_.positions, ElementsAre(0, 1, 2));
  EXPECT_THAT(batch_.sequences, ElementsAre(0, 0, 0));
  EXPECT_THAT(batch_.sample_rows, ElementsAre(2));
  EXPECT_TRUE(batch_.entries[0].samples);
  EXPECT_EQ(batch_.prefill_tokens, 3);
  EXPECT_EQ(batch_.entries[0].sequence->admitted, kNow);
}

TEST_F(BatchPlannerTest, AfterThePromptOneTokenAStepIsComputed) {
  make({.sequences_max = 4, .tokens_max = 8, .blocks_per_table = 2}, 4);
  planner_->add(make_sequence(1, 3, 4));
  plan();
  complete();
  plan();
  EXPECT_THAT(batch_.token_ids, ElementsAre(7));
  EXPECT_THAT(batch_.positions, ElementsAre(3));
  EXPECT_THAT(batch_.sample_rows, ElementsAre(0));
  EXPECT_EQ(batch_.prefill_tokens, 0);
  EXPECT_EQ(batch_.entries[0].sequence->prefill_chunks, 1);
}

TEST_F(BatchPlannerTest, ALongPromptIsChunkedAndOnlyItsLastChunkSamples) {
  make({.sequences_max = 4, .tokens_max = 4, .blocks_per_table = 2}, 4);
  planner_->add(make_sequence(1, 10, 4));
  plan();
  EXPECT_THAT(batch_.positions, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(batch_.sample_rows, IsEmpty());
  EXPECT_FALSE(batch_.entries[0].samples);
  complete();
  plan();
  EXPECT_THAT(batch_.positions, ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(batch_.sample_rows, IsEmpty());
  complete();
  plan();
  EXPECT_THAT(batch_.positions, ElementsAre(8, 9));
  EXPECT_THAT(batch_.token_ids, ElementsAre(108, 109));
  EXPECT_THAT(batch_.sample_rows, ElementsAre(1));
  EXPECT_EQ(batch_.prefill_tokens, 2);
  EXPECT_EQ(batch_.entries[0].sequence->prefill_chunks, 3);
}

TEST_F(BatchPlannerTest, RunningRequestsGoBeforePromptsAndPromptsShareWhatIsLeft) {
  make({.sequences_max = 4, .tokens_max = 6, .blocks_per_table = 2}, 8);
  planner_->add(make_sequence(1, 6, 9));
  plan();
  complete();  // 1 decodes from here
  planner_->add(make_sequence(2, 3, 9));
  planner_->add(make_sequence(3, 9, 9));
  plan();
  EXPECT_THAT(ids(), ElementsAre(1, 2, 3));
  EXPECT_THAT(batch_.positions, ElementsAre(6, 0, 1, 2, 0, 1));
  EXPECT_THAT(batch_.sample_rows, ElementsAre(0, 3));
  EXPECT_EQ(batch_.prefill_tokens, 5);
  complete();
  plan();
  EXPECT_THAT(ids(), ElementsAre(1, 2, 3));
  EXPECT_THAT(batch_.positions, ElementsAre(7, 3, 2, 3, 4, 5)) << "both running requests, then the rest of the budget for the prompt";
}

TEST_F(BatchPlannerTest, BesideRunningStreamsShortPromptsAreSpreadOverSteps) {
  make({.sequences_max = 8, .tokens_max = 512, .blocks_per_table = 40}, 120);
  add_streams(4);
  planner_->add(make_sequence(5, 40, 8));
  planner_->add(make_sequence(6, 40, 8));
  plan();
  EXPECT_THAT(ids(), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(batch_.entries[4].rows, 40);
  EXPECT_EQ(batch_.entries[5].rows, kPromptTokens - 40);
  EXPECT_EQ(batch_.waiting, 0);
  complete();
  planner_->add(make_sequence(7, 100, 8));
  plan();
  EXPECT_THAT(ids(), ElementsAre(1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(batch_.prefill_tokens, kPromptTokens);
}

TEST_F(BatchPlannerTest, PromptsThatAreMoreThanTheStreamsHaveTheWholeBudget) {
  make({.sequences_max = 8, .tokens_max = 512, .blocks_per_table = 40}, 240);
  add_streams(2);
  for (RequestId id = 3; id <= 5; ++id) {
    planner_->add(make_sequence(id, 250, 8));
  }
  plan();
  EXPECT_EQ(batch_.prefill_tokens, 510) << "three prompts, two streams";
  complete();
  plan();
  EXPECT_EQ(batch_.prefill_tokens, kPromptTokens) << "one prompt is left, and four streams run";
}

TEST_F(BatchPlannerTest, StreamsAndPromptsOfOtherMembersCountAsOnesOwn) {
  make({.sequences_max = 8, .tokens_max = 512, .blocks_per_table = 40}, 240);
  planner_->add(make_sequence(1, 300, 8));
  EXPECT_EQ(plan(/*streams_elsewhere=*/0).rows(), 300);
  complete();
  EXPECT_TRUE(remove(1));
  planner_->add(make_sequence(2, 300, 8));
  EXPECT_EQ(plan(/*streams_elsewhere=*/1).rows(), kPromptTokens);
  complete();
  EXPECT_EQ(plan(/*streams_elsewhere=*/3, /*prompts_elsewhere=*/2).rows(), kPromptTokens);
  complete();
  EXPECT_EQ(plan(/*streams_elsewhere=*/2, /*prompts_elsewhere=*/2).rows(), 300 - 2 * kPromptTokens);
}

TEST_F(BatchPlannerTest, BesideRunningStreamsLongPromptsTakeAnEighthOfWhatIsLeftUpToHalfOfTheBudget) {
  make({.sequences_max = 3, .tokens_max = 512, .blocks_per_table = 600}, 1200);
  add_streams(2);
  planner_->add(make_sequence(3, 8000, 8));
  plan();
  EXPECT_EQ(batch_.prefill_tokens, 256);  // an eighth would be 1,000
  complete();
  std::int32_t left = 8000 - 256;
  while (left > 0) {
    plan();
    ASSERT_EQ(batch_.prefill_tokens, std::min({left, 256, std::max(left / 8, kPromptTokens)})) << left << " left";
    left -= batch_.prefill_tokens;
    complete();
  }
}

TEST_F(BatchPlannerTest, ALaterRequestThatDecodesGoesBeforeAnEarlierPrompt) {
  make({.sequences_max = 4, .tokens_max = 4, .blocks_per_table = 4}, 8);
  planner_->add(make_sequence(1, 2, 9));
  planner_->add(make_sequence(2, 40, 9));
  plan();
  complete();
  plan();
  EXPECT_THAT(ids(), ElementsAre(1, 2));
  EXPECT_EQ(batch_.entries[0].rows, 1);
  EXPECT_EQ(batch_.entries[1].rows, 3);
  EXPECT_THAT(batch_.sample_rows, ElementsAre(0));
}

TEST_F(BatchPlannerTest, TheBudgetIsNeverExceededWhenEveryRequestWantsMore) {
  make({.sequences_max = 3, .tokens_max = 3, .blocks_per_table = 2}, 8);
  for (RequestId id = 1; id <= 3; ++id) {
    planner_->add(make_sequence(id, 5, 5));
  }
  for (int step = 0; step < 5; ++step) {
    EXPECT_EQ(plan().rows(), 3) << "step " << step;
    complete();
  }
  // 15 prompt rows are computed in 5 steps or more: here in the sixth, the first two decode beside the third's prompt.
  plan();
  EXPECT_LE(batch_.rows(), 3);
}

TEST_F(BatchPlannerTest, ARequestThatDoesNotFitHoldsUpThoseBehindIt) {
  make({.sequences_max = 4, .tokens_max = 64, .blocks_per_table = 4}, 4);
  planner_->add(make_sequence(1, 32, 1));  // 2 blocks
  planner_->add(make_sequence(2, 48, 1));  // 3 blocks: not yet
  planner_->add(make_sequence(3, 4, 4));   // 1 block: would fit
  plan();
  EXPECT_THAT(ids(), ElementsAre(1));
  EXPECT_EQ(planner_->running_count(), 1);
  EXPECT_EQ(planner_->waiting_count(), 2);
  EXPECT_EQ(cache().free_count(), 2);
  complete();
  EXPECT_TRUE(remove(1));
  plan();
  EXPECT_THAT(ids(), ElementsAre(2, 3));
  EXPECT_EQ(planner_->waiting_count(), 0);
}

TEST_F(BatchPlannerTest, NoMoreSequencesAreAdmittedThanTheLimit) {
  make({.sequences_max = 2, .tokens_max = 64, .blocks_per_table = 1}, 8);
  for (RequestId id = 1; id <= 3; ++id) {
    planner_->add(make_sequence(id, 2, 2));
  }
  plan();
  EXPECT_THAT(ids(), ElementsAre(1, 2));
  EXPECT_EQ(planner_->waiting_count(), 1);
  complete();
  EXPECT_TRUE(remove(2));
  plan();
  EXPECT_THAT(ids(), ElementsAre(1, 3));
}

TEST_F(BatchPlannerTest, ASequenceHasBlocksForItsPromptAndOneMoreWhenItHasFilledTheLast) {
  make({.sequences_max = 4, .tokens_max = 64, .blocks_per_table = 4}, 8);
  planner_->add(make_sequence(1, 16, 40));
  planner_->add(make_sequence(2, 17, 40));
  plan();
  EXPECT_EQ(cache().free_count(), 5);
  EXPECT_EQ(std::ssize(batch_.entries[0].sequence->blocks), 1);
  EXPECT_EQ(std::ssize(batch_.entries[1].sequence->blocks), 2);
  for (int step = 0; step < 16; ++step) {
    complete();
    plan();
    EXPECT_EQ(std::ssize(batch_.entries[0].sequence->blocks), 2) << "its seventeenth token is in the second";
    EXPECT_EQ(std::ssize(batch_.entries[1].sequence->blocks), step < 15 ? 2 : 3);
  }
  EXPECT_EQ(batch_.block_tables[0], batch_.entries[0].sequence->blocks[0]);
  EXPECT_EQ(batch_.block_tables[1], batch_.entries[0].sequence->blocks[1]);
  EXPECT_EQ(planner_->preemptions(), 0);
}

TEST_F(BatchPlannerTest, BlockTablesHoldEachEntrysBlocksInOrderAndZerosBehind) {
  make({.sequences_max = 4, .tokens_max = 64, .blocks_per_table = 3}, 8);
  planner_->add(make_sequence(1, 20, 4));
  planner_->add(make_sequence(2, 4, 4));
  plan();
  const std::vector<std::int32_t>& first = batch_.entries[0].sequence->blocks;
  const std::vector<std::int32_t>& second = batch_.entries[1].sequence->blocks;
  ASSERT_EQ(first.size(), 2U);
  ASSERT_EQ(second.size(), 1U);
  EXPECT_THAT(batch_.block_tables, ElementsAre(first[0], first[1], 0, second[0], 0, 0));
  EXPECT_EQ(batch_.sequences.front(), 0);
  EXPECT_EQ(batch_.sequences.back(), 1);
}

TEST_F(BatchPlannerTest, ABatchOfTheStepBeforeLeavesNoTraceInTheNext) {
  make({.sequences_max = 4, .tokens_max = 64, .blocks_per_table = 3}, 8);
  planner_->add(make_sequence(1, 40, 4));
  plan();
  complete();
  EXPECT_TRUE(remove(1));
  planner_->add(make_sequence(2, 2, 4));
  plan();
  EXPECT_EQ(batch_.rows(), 2);
  const std::vector<std::int32_t>& blocks = batch_.entries[0].sequence->blocks;
  EXPECT_THAT(batch_.block_tables, ElementsAre(blocks[0], 0, 0));
}

TEST_F(BatchPlannerTest, RemovingARunningRequestFreesItsBlocks) {
  make({.sequences_max = 4, .tokens_max = 64, .blocks_per_table = 3}, 8);
  planner_->add(make_sequence(1, 40, 4));
  planner_->add(make_sequence(2, 4, 4));
  plan();
  EXPECT_EQ(cache().free_count(), 4);
  complete();
  const Sequence* const removed = planner_->remove(1);
  ASSERT_NE(removed, nullptr);
  EXPECT_EQ(removed->request.id, 1U);
  EXPECT_TRUE(removed->ended);
  EXPECT_EQ(cache().free_count(), 4) << "it lives until free_removed";
  planner_->free_removed();
  EXPECT_EQ(cache().free_count(), 7);
  EXPECT_FALSE(remove(1)) << "it is gone";
  plan();
  EXPECT_THAT(ids(), ElementsAre(2));
}

TEST_F(BatchPlannerTest, RemovingAWaitingRequestFreesNothingAndKeepsTheOrder) {
  make({.sequences_max = 1, .tokens_max = 64, .blocks_per_table = 1}, 8);
  for (RequestId id = 1; id <= 3; ++id) {
    planner_->add(make_sequence(id, 4, 4));
  }
  plan();
  complete();
  EXPECT_TRUE(remove(2));
  EXPECT_EQ(cache().free_count(), 7);
  EXPECT_TRUE(remove(1));
  EXPECT_EQ(cache().free_count(), 8);
  plan();
  EXPECT_THAT(ids(), ElementsAre(3));
}

TEST_F(BatchPlannerTest, RemoveAnyEmptiesThePlannerOldestFirst) {
  make({.sequences_max = 2, .tokens_max = 64, .blocks_per_table = 1}, 8);
  for (RequestId id = 1; id <= 4; ++id) {
    planner_->add(make_sequence(id, 4, 4));
  }
  plan();
  complete();
  for (RequestId id = 1; id <= 4; ++id) {
    const Sequence* const sequence = planner_->remove_any();
    ASSERT_NE(sequence, nullptr);
    EXPECT_EQ(sequence->request.id, id);
  }
  EXPECT_EQ(planner_->remove_any(), nullptr);
  planner_->free_removed();
  EXPECT_EQ(cache().free_count(), 8);
  EXPECT_EQ(planner_->running_count() + planner_->waiting_count(), 0);
}

TEST_F(BatchPlannerTest, ABatchAheadCountsARunningRequestOneTokenFurtherAndReadsTheTokenLater) {
  make({.sequences_max = 4, .tokens_max = 8, .blocks_per_table = 2}, 8);
  planner_->add(make_sequence(1, 3, 9));
  StepBatch first;
  planner_->plan(kNow, {.tokens = kPromptTokens}, first);
  plan();  // while `first` is not computed
  EXPECT_THAT(batch_.positions, ElementsAre(3));
  EXPECT_THAT(batch_.sample_rows, ElementsAre(0));
  EXPECT_TRUE(batch_.entries[0].is_late);
  EXPECT_EQ(batch_.prefill_tokens, 0);
  complete(first);
  BatchPlanner::fill_late_tokens(batch_);
  EXPECT_THAT(batch_.token_ids, ElementsAre(7));
  StepBatch third;
  planner_->plan(kNow, {.tokens = kPromptTokens}, third);
  EXPECT_THAT(third.positions, ElementsAre(4));
  complete();
  EXPECT_EQ(batch_.entries[0].sequence->computed, 4);
}

TEST_F(BatchPlannerTest, ABatchAheadLeavesOutARequestWhoseDueTokenIsItsLast) {
  make({.sequences_max = 4, .tokens_max = 8, .blocks_per_table = 2}, 8);
  planner_->add(make_sequence(1, 3, 1));
  planner_->add(make_sequence(2, 3, 2));
  StepBatch first;
  planner_->plan(kNow, {.tokens = kPromptTokens}, first);
  plan();
  EXPECT_THAT(ids(), ElementsAre(2));
  EXPECT_EQ(batch_.waiting, 0) << "it wants no rows";
  StepBatch third;
  complete(first);
  EXPECT_TRUE(remove(1));
  planner_->plan(kNow, {.tokens = kPromptTokens}, third);
  EXPECT_EQ(third.rows(), 0);
}

TEST_F(BatchPlannerTest, ABatchAheadGoesOnWithAPromptWhereTheOneUnderWayEnds) {
  make({.sequences_max = 4, .tokens_max = 4, .blocks_per_table = 2}, 8);
  planner_->add(make_sequence(1, 7, 4));
  StepBatch first;
  planner_->plan(kNow, {.tokens = kPromptTokens}, first);
  plan();
  EXPECT_THAT(batch_.positions, ElementsAre(4, 5, 6));
  EXPECT_THAT(batch_.token_ids, ElementsAre(104, 105, 106));
  EXPECT_FALSE(batch_.entries[0].is_late);
  EXPECT_THAT(batch_.sample_rows, ElementsAre(2));
  EXPECT_EQ(batch_.entries[0].sequence->prefill_chunks, 2);
}

TEST_F(BatchPlannerTest, ARequestThatEndsUnderABatchAheadKeepsItsBlocksUntilThatBatchIsComputed) {
  make({.sequences_max = 4, .tokens_max = 8, .blocks_per_table = 2}, 8);
  planner_->add(make_sequence(1, 20, 9));
  StepBatch first;
  planner_->plan(kNow, {.tokens = kPromptTokens}, first);
  complete(first);  // three steps: its prompt has 20 tokens, 8 a step
  planner_->plan(kNow, {.tokens = kPromptTokens}, first);
  complete(first);
  planner_->plan(kNow, {.tokens = kPromptTokens}, first);
  plan();
  complete(first);
  EXPECT_TRUE(remove(1)) << "its token ended it";
  EXPECT_EQ(cache().free_count(), 6) << "a row of it is still to be computed";
  BatchPlanner::fill_late_tokens(batch_);
  EXPECT_THAT(batch_.token_ids, ElementsAre(7)) << "some token of the vocabulary: what comes of it is dropped";
  EXPECT_FALSE(remove(1)) << "it cannot end twice";
  complete();
  planner_->free_removed();
  EXPECT_EQ(cache().free_count(), 8);
}

TEST_F(BatchPlannerTest, WhatWantsRowsAndHasNoneIsWaiting) {
  make({.sequences_max = 2, .tokens_max = 3, .blocks_per_table = 1}, 8);
  for (RequestId id = 1; id <= 4; ++id) {
    planner_->add(make_sequence(id, 3, 4));
  }
  plan();
  EXPECT_THAT(ids(), ElementsAre(1));
  EXPECT_EQ(batch_.waiting, 3) << "one admitted without budget, two not admitted";
}

}  // namespace
}  // namespace lockstep::scheduler
