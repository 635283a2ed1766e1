// Goal    A batch is cut and walked as promised: each row once, in the order asked for, with states and times that tell what happened; bad input is refused.
// Method  Values by hand, and random sizes whose seeds are printed; a clock that stands still unless told.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/micro_batch.hpp"
#include "tests/support/manual_clock.hpp"

namespace lockstep {
namespace {

using test::ManualClock;

std::vector<std::int32_t> walk(MicroBatchSequence& context, const PriorityFn& priority = {}) {
  std::vector<std::int32_t> indices;
  for (const MicroBatchInfo& info : context.iterate(priority)) {
    indices.push_back(info.index);
  }
  return indices;
}

std::string refusal(const MicroBatchOptions& options) {
  try {
    const MicroBatchContext context(options);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(MicroBatchContext, CutsABatchIntoRunsOfTheSizeWithTheRestLast) {
  MicroBatchContext context({.batch_size = 20, .micro_batch_size = 8});
  EXPECT_EQ(context.batch_size(), 20);
  EXPECT_EQ(context.micro_batch_size(), 8);
  ASSERT_EQ(context.num_micro_batches(), 3);
  EXPECT_EQ(context.info(1).start, 8);
  EXPECT_EQ(context.info(1).end, 16);
  EXPECT_EQ(context.info(2).start, 16);
  EXPECT_EQ(context.info(2).size, 4);
}

TEST(MicroBatchContext, AnEmptyBatchIteratesZeroTimes) {
  MicroBatchContext<int> context({.batch_size = 0});
  EXPECT_EQ(context.num_micro_batches(), 0);
  EXPECT_TRUE(walk(context).empty());
  EXPECT_TRUE(context.gather_outputs().empty());
}

TEST(MicroBatchContext, BadInputIsRefusedWithItsValue) {
  EXPECT_NE(refusal({.batch_size = -1}).find("batch_size is -1"), std::string::npos);
  EXPECT_NE(refusal({.micro_batch_size = 0}).find("micro_batch_size is 0"), std::string::npos);
  EXPECT_NE(refusal({.min_micro_batch = 9, .max_micro_batch = 8}).find("min_micro_batch is 9"), std::string::npos);
  EXPECT_NE(refusal({.min_micro_batch = 0}).find("min_micro_batch is 0"), std::string::npos);
  EXPECT_NE(refusal({.num_threads = 0}).find("num_threads is 0"), std::string::npos);
  EXPECT_EQ(refusal({.num_threads = std::numeric_limits<int>::max()}), "num_threads is 2147483647, expected 1 to 4096");
  EXPECT_NE(refusal({.num_micro_batches_min = -2}).find("num_micro_batches_min is -2"), std::string::npos);
}

TEST(MicroBatchContext, HoldsTheSizeWithinItsLimitsUnlessNotAdaptive) {
  EXPECT_EQ(MicroBatchContext({.batch_size = 200, .micro_batch_size = 100}).micro_batch_size(), 64);
  EXPECT_EQ(MicroBatchContext({.batch_size = 200, .micro_batch_size = 2, .min_micro_batch = 4}).micro_batch_size(), 4);
  EXPECT_EQ(MicroBatchContext({.batch_size = 200, .micro_batch_size = 100, .adaptive = false}).micro_batch_size(), 100);
}

TEST(MicroBatchContext, RandomSplitsCoverEachRowOnceInOrder) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const auto batch_size = static_cast<std::int32_t>(random() % 300);
    const auto size = static_cast<std::int32_t>(1 + random() % 70);
    MicroBatchContext context({.batch_size = batch_size, .micro_batch_size = size, .adaptive = false});
    EXPECT_EQ(context.num_micro_batches(), (batch_size + size - 1) / size);
    std::int32_t row = 0;
    std::int32_t index = 0;
    for (const MicroBatchInfo& info : context.iterate()) {
      EXPECT_EQ(info.index, index++);
      EXPECT_EQ(info.start, row) << "batch " << batch_size << " size " << size;
      EXPECT_EQ(info.size, info.end - info.start);
      EXPECT_GE(info.size, 1);
      EXPECT_LE(info.size, size);
      row = info.end;
    }
    EXPECT_EQ(row, batch_size);
  }
}

TEST(MicroBatchContext, AnAgreedNumberAddsEmptyMicroBatchesAtTheEnd) {
  MicroBatchContext context({.batch_size = 5, .micro_batch_size = 4, .num_micro_batches_min = 4});
  EXPECT_EQ(walk(context), (std::vector<std::int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(context.info(1).size, 1);
  EXPECT_EQ(context.info(3).start, 5);
  EXPECT_EQ(context.info(3).size, 0);
}

TEST(MicroBatchContext, PriorityGoesHighestFirstWithTiesByIndex) {
  MicroBatchContext context({.batch_size = 6, .micro_batch_size = 1});
  const std::vector<double> priorities{1, 5, 1, 5, 9, 0};
  EXPECT_EQ(walk(context, [&](const MicroBatchInfo& info) { return priorities[static_cast<std::size_t>(info.index)]; }),
            (std::vector<std::int32_t>{4, 1, 3, 0, 2, 5}));
}

TEST(MicroBatchContext, StatesGoFromPendingOverRunningToCompleted) {
  MicroBatchContext context({.batch_size = 2, .micro_batch_size = 1});
  for (const MicroBatchInfo& info : context.iterate()) {
    EXPECT_EQ(info.state, MicroBatchState::kRunning);
    EXPECT_EQ(context.stats().running, 1);
    EXPECT_EQ(context.stats().pending, 1 - info.index);
    EXPECT_EQ(context.stats().completed, info.index);
  }
  EXPECT_EQ(context.stats().completed, 2);
}

TEST(MicroBatchContext, TimesAreFromTheClockAndAddUpInTheStats) {
  ManualClock clock;
  MicroBatchContext context({.batch_size = 3, .micro_batch_size = 1, .clock = &clock});
  for (const MicroBatchInfo& info : context.iterate()) {
    EXPECT_EQ(info.duration_ms(), 0);
    clock.advance(std::chrono::milliseconds(2 * (info.index + 1)));
  }
  EXPECT_DOUBLE_EQ(context.info(2).duration_ms(), 6);
  const MicroBatchStats stats = context.stats();
  EXPECT_EQ(stats.batch_size, 3);
  EXPECT_EQ(stats.num_micro_batches, 3);
  EXPECT_DOUBLE_EQ(stats.total_ms, 12);
  EXPECT_DOUBLE_EQ(stats.mean_ms, 4);
  EXPECT_DOUBLE_EQ(stats.min_ms, 2);
  EXPECT_DOUBLE_EQ(stats.max_ms, 6);
}

TEST(MicroBatchInfo, OnlyLegalChangesOfStateAreTaken) {
  using enum MicroBatchState;
  const std::vector<std::pair<MicroBatchState, MicroBatchState>> legal{
      {kPending, kRunning}, {kPending, kFailed}, {kRunning, kCompleted}, {kRunning, kFailed}, {kCompleted, kFailed}};
  for (const MicroBatchState from : {kPending, kRunning, kCompleted, kFailed}) {
    for (const MicroBatchState to : {kPending, kRunning, kCompleted, kFailed}) {
      MicroBatchInfo info{.index = 3, .state = from};
      if (std::find(legal.begin(), legal.end(), std::pair(from, to)) != legal.end()) {
        info.change_state(to);
        EXPECT_EQ(info.state, to);
      } else {
        EXPECT_THROW(info.change_state(to), std::logic_error) << micro_batch_state_name(from) << " to " << micro_batch_state_name(to);
        EXPECT_EQ(info.state, from);
      }
    }
  }
}

TEST(MicroBatchContext, ABatchIsWalkedOnceBeforeReset) {
  MicroBatchContext context({.batch_size = 4, .micro_batch_size = 2});
  walk(context);
  EXPECT_THROW(static_cast<void>(context.iterate()), std::logic_error);
  context.reset(7);
  EXPECT_EQ(walk(context), (std::vector<std::int32_t>{0, 1, 2, 3}));
  EXPECT_THROW(context.reset(-1), std::invalid_argument);
}

TEST(MicroBatchContext, ResetTakesASplitThatWasAgreedOnWithItsEmptyMicroBatches) {
  MicroBatchContext context({.batch_size = 40});
  context.reset({.batch_size = 5, .micro_batch_size = 3, .num_micro_batches = 4});
  ASSERT_EQ(context.num_micro_batches(), 4);
  const std::vector<std::int32_t> sizes{context.info(0).size, context.info(1).size, context.info(2).size, context.info(3).size};
  EXPECT_EQ(sizes, (std::vector<std::int32_t>{3, 2, 0, 0}));
  context.reset({.batch_size = 100, .micro_batch_size = 100, .num_micro_batches = 1});
  EXPECT_EQ(context.num_micro_batches(), 1) << "beyond max_micro_batch, which is for sizes of its own";
  EXPECT_THROW(context.reset({.batch_size = 4, .micro_batch_size = 0, .num_micro_batches = 1}), std::invalid_argument);
  EXPECT_THROW(context.reset({.batch_size = -1, .micro_batch_size = 1, .num_micro_batches = 1}), std::invalid_argument);
  AdaptiveMicroBatchContext adaptive(AdaptiveMicroBatchOptions{.batch_size = 4});
  EXPECT_THROW(adaptive.reset({.batch_size = 4, .micro_batch_size = 2, .num_micro_batches = 2}), std::logic_error);
}

TEST(MicroBatchContext, ResetInsideAMicroBatchIsRefused) {
  MicroBatchContext context({.batch_size = 4, .micro_batch_size = 2});
  const auto scope = context.scope(0);
  EXPECT_THROW(context.reset(4), std::logic_error);
}

TEST(MicroBatchContext, IterateWithDataGivesEachMicroBatchItsRows) {
  MicroBatchContext context({.batch_size = 5, .micro_batch_size = 2});
  std::vector<int> data(15);
  for (const auto& [info, rows] : context.iterate_with_data(data, 3)) {
    EXPECT_EQ(rows.size(), static_cast<std::size_t>(info.size) * 3);
    std::fill(rows.begin(), rows.end(), info.index + 1);
  }
  EXPECT_EQ(data, (std::vector{1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3}));
}

TEST(MicroBatchContext, DataOfAnotherSizeIsRefused) {
  MicroBatchContext context({.batch_size = 5});
  const std::vector<int> data(6);
  EXPECT_THROW(static_cast<void>(context.iterate_with_data(data)), std::invalid_argument);
}

TEST(MicroBatchContext, DataWhoseSizeOverflowsIsRefused) {
  MicroBatchContext context({.batch_size = 2});
  const std::vector<int> none;
  EXPECT_THROW(static_cast<void>(context.iterate_with_data(none, std::size_t{1} << 63U)), std::invalid_argument);
}

TEST(MicroBatchContext, APriorityThatIsNoNumberIsRefusedAndTheWalkMayBeginAgain) {
  MicroBatchContext context({.batch_size = 3, .micro_batch_size = 1});
  const auto first_over_size = [](const MicroBatchInfo& info) { return info.index == 1 ? std::nan("") : 1.0; };
  try {
    static_cast<void>(context.iterate(first_over_size));
    ADD_FAILURE() << "accepted";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "the priority of micro-batch 1 is not a number: there is no place for it in the order");
  }
  EXPECT_EQ(walk(context), (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(MicroBatchContext, AStepProgramEntersByIndexAnyNumberOfTimesUntilComplete) {
  MicroBatchContext context({.batch_size = 4, .micro_batch_size = 2});
  for (const std::int32_t index : {0, 1, 0, 1}) {
    const auto scope = context.scope(index);
    EXPECT_EQ(scope.info().index, index);
  }
  EXPECT_EQ(context.stats().running, 2);
  context.complete(0);
  EXPECT_EQ(context.info(0).state, MicroBatchState::kCompleted);
  EXPECT_THROW(static_cast<void>(context.scope(0)), std::logic_error);
  EXPECT_THROW(context.complete(0), std::logic_error);
  EXPECT_THROW(static_cast<void>(context.scope(2)), std::out_of_range);
  EXPECT_THROW(static_cast<void>(context.scope(-1)), std::out_of_range);
}

TEST(MicroBatchContext, AWalkLeavesOutWhatWasEnteredByIndex) {
  MicroBatchContext context({.batch_size = 3, .micro_batch_size = 1});
  { const auto scope = context.scope(1); }
  EXPECT_EQ(walk(context), (std::vector<std::int32_t>{0, 2}));
}

TEST(Factories, MakeWhatTheyAreAskedFor) {
  const auto plain = create_micro_batch_context<int>(100, 10, false);
  EXPECT_EQ(plain->num_micro_batches(), 10);
  EXPECT_EQ(dynamic_cast<AdaptiveMicroBatchContext<int>*>(plain.get()), nullptr);
  const auto adaptive = create_micro_batch_context<int>(100, 10, true);
  EXPECT_NE(dynamic_cast<AdaptiveMicroBatchContext<int>*>(adaptive.get()), nullptr);
  auto scope = micro_batch_scope(100, 10);
  EXPECT_EQ(walk(scope).size(), 10U);
}

TEST(Factories, LoseNoOption) {
  const AttentionMetadataByLayer own;
  const ForwardContext outer = create_forward_context({});
  const set_forward_context scope(outer);
  for (const bool adaptive : {false, true}) {
    const auto context = create_micro_batch_context<int>(4, 2, adaptive, {.narrow_attention = [&own](const MicroBatchInfo& /*info*/) { return &own; }});
    for ([[maybe_unused]] const MicroBatchInfo& info : context->iterate()) {
      EXPECT_EQ(get_forward_context().attn_metadata, &own) << (adaptive ? "adaptive" : "plain");
    }
  }
  EXPECT_EQ(create_micro_batch_context<int>(4, 2, false, {.num_micro_batches_min = 3})->num_micro_batches(), 3);
  EXPECT_THROW(static_cast<void>(create_micro_batch_context<int>(4, 2, true, {.num_micro_batches_min = 3})), std::invalid_argument)
      << "an agreed number, and a size that this rank chooses alone";
}

}  // namespace
}  // namespace lockstep
