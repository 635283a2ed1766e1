// Goal    A rank proposes the faster of whole and split steps, for each shape by itself, and notices when the other one becomes faster.
// Method  Steps in simulated time: each takes what a table says; several ranks propose together, the least counts, as the agreement has it.
#include "scheduler/step/micro_batch_choice.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "scheduler/step/step_cache.hpp"

namespace lockstep::scheduler {
namespace {

/// Ranks that take steps together.
struct Ranks {
  explicit Ranks(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      choices.push_back(std::make_unique<MicroBatchChoice>(512));
    }
  }
  /// What each number of micro-batches takes.
  struct Times {
    double whole_ms;
    double two_ms;
    double four_ms;
    std::optional<double> exchange_ms = 0.5;  ///< of each step, enough for trials to make sense; nullopt: not known
    [[nodiscard]] double of(std::int32_t micro_batches) const { return micro_batches == 1 ? whole_ms : (micro_batches == 2 ? two_ms : four_ms); }
  };
  /// How many of the steps had each number of micro-batches.
  using Counts = std::map<std::int32_t, int>;
  Counts take(int steps, const std::vector<std::int32_t>& rows, const Times& times) {
    Counts counts;
    for (int i = 0; i < steps; ++i, ++step) {
      std::int32_t agreed = 4;
      for (std::size_t rank = 0; rank < choices.size(); ++rank) {
        agreed = std::min(agreed, choices[rank]->propose(step_shape(rows[rank], true), step).count);
      }
      ++counts[agreed];
      // A little noise, the same in each run.
      const double noise = 1.0 + 0.01 * static_cast<double>(step * 7 % 5);
      for (std::size_t rank = 0; rank < choices.size(); ++rank) {
        choices[rank]->record(step_shape(rows[rank], true), agreed, step, times.of(agreed) * noise,
                              times.exchange_ms ? std::optional(*times.exchange_ms * noise) : std::nullopt);
      }
    }
    return counts;
  }
  std::vector<std::unique_ptr<MicroBatchChoice>> choices;
  std::int64_t step = 0;
};

constexpr Ranks::Times kWholeIsBest{.whole_ms = 1.0, .two_ms = 1.2, .four_ms = 1.3};
constexpr Ranks::Times kTwoIsBest{.whole_ms = 2.0, .two_ms = 1.5, .four_ms = 1.7};
constexpr Ranks::Times kFourIsBest{.whole_ms = 1.7, .two_ms = 1.5, .four_ms = 1.2};

TEST(MicroBatchChoice, SettlesOnTheFastestAndOnlyProbesTheOthers) {
  for (const auto& [times, best] : {std::pair{kWholeIsBest, 1}, std::pair{kTwoIsBest, 2}, std::pair{kFourIsBest, 4}}) {
    Ranks ranks(1);
    ranks.take(100, {64}, times);
    Ranks::Counts counts = ranks.take(630, {64}, times);
    EXPECT_EQ(counts[best], 610) << best;
    for (const std::int32_t other : MicroBatchChoice::kCounts) {
      EXPECT_EQ(counts[other], other == best ? 610 : 10) << "probes of " << other << " where the best is " << best;
    }
  }
}

TEST(MicroBatchChoice, WhatTakesFarLongerIsTriedRarelyByAllRanksInTheSameSteps) {
  // A decode whose weights each micro-batch reads again: a probe of four costs as much as 2.6 steps more.
  constexpr Ranks::Times kDecode{.whole_ms = 5.7, .two_ms = 10.6, .four_ms = 20.6, .exchange_ms = 0.3};
  Ranks ranks(3);
  ranks.take(63, {8, 8, 2}, kDecode);
  Ranks::Counts counts = ranks.take(63 * 16, {8, 8, 2}, kDecode);
  EXPECT_EQ(counts[2], 2);
  EXPECT_EQ(counts[4], 2);
  // Its exchanges become slow: whole steps show it, and it is tried as often as before.
  ranks.take(63 * 40, {8, 8, 2}, {.whole_ms = 40, .two_ms = 30, .four_ms = 20, .exchange_ms = 30});
  EXPECT_GE(ranks.take(63, {8, 8, 2}, {.whole_ms = 40, .two_ms = 30, .four_ms = 20, .exchange_ms = 30})[4], 61);
}

TEST(MicroBatchChoice, KnowsEachShapeByItself) {
  Ranks ranks(1);
  for (int round = 0; round < 20; ++round) {
    ranks.take(12, {512}, kTwoIsBest);
    ranks.take(12, {8}, kWholeIsBest);
  }
  EXPECT_GE(ranks.take(63, {512}, kTwoIsBest)[2], 61);
  EXPECT_GE(ranks.take(63, {8}, kWholeIsBest)[1], 61);
}

TEST(MicroBatchChoice, FollowsAChange) {
  Ranks ranks(1);
  ranks.take(200, {64}, kWholeIsBest);
  ranks.take(63 * 40, {64}, {.whole_ms = 5.0, .two_ms = 2.0, .four_ms = 3.0});
  EXPECT_GE(ranks.take(63, {64}, {.whole_ms = 5.0, .two_ms = 2.0, .four_ms = 3.0})[2], 61);
}

TEST(MicroBatchChoice, RanksOfDifferentLoadTryAllAndComeToOne) {
  Ranks ranks(3);
  ranks.take(63, {64, 2, 300}, kTwoIsBest);
  EXPECT_GE(ranks.take(63, {64, 2, 300}, kTwoIsBest)[2], 61);
  // A newcomer's shape is unknown to it: the group tries again, and comes back.
  ranks.take(63, {64, 200, 300}, kTwoIsBest);
  EXPECT_GE(ranks.take(63, {64, 200, 300}, kTwoIsBest)[2], 61);
}

TEST(MicroBatchChoice, ADifferenceWithinTheNoiseChangesNothing) {
  Ranks ranks(1);
  EXPECT_GE(ranks.take(1000, {64}, {.whole_ms = 1.0, .two_ms = 0.99, .four_ms = 0.99})[1], 950);
}

TEST(MicroBatchChoice, WhereExchangesTakeNextToNothingNoStepIsSplitToTry) {
  for (const double exchange_ms : {0.01, 0.99}) {  // of a millisecond: nothing to hide, and nothing to hide it under
    Ranks ranks(1);
    ranks.take(40, {64}, {.whole_ms = 1.0, .two_ms = 1.2, .four_ms = 1.3, .exchange_ms = exchange_ms});
    EXPECT_EQ(ranks.take(630, {64}, {.whole_ms = 1.0, .two_ms = 1.2, .four_ms = 1.3, .exchange_ms = exchange_ms})[1], 630);
    // The link becomes slow: whole steps show it, and the trials begin again.
    ranks.take(630, {64}, {.whole_ms = 2.0, .two_ms = 1.2, .four_ms = 1.3, .exchange_ms = 1.0});
    EXPECT_GE(ranks.take(63, {64}, {.whole_ms = 2.0, .two_ms = 1.2, .four_ms = 1.3, .exchange_ms = 1.0})[2], 61);
  }
}

TEST(MicroBatchChoice, WhereNobodyKnowsWhatExchangesTakeTheDurationsOfStepsDecide) {
  for (const auto& [whole_ms, best] : {std::pair{2.0, 2}, std::pair{1.0, 1}}) {
    const Ranks::Times times{.whole_ms = whole_ms, .two_ms = 1.4, .four_ms = 1.8, .exchange_ms = std::nullopt};
    Ranks ranks(1);
    ranks.take(100, {64}, times);
    Ranks::Counts counts = ranks.take(63, {64}, times);
    EXPECT_GE(counts[best], 61);
    EXPECT_GE(counts[best == 1 ? 2 : 1], 1) << "trials go on";
  }
}

TEST(MicroBatchChoice, SaysWhetherAStepIsATrial) {
  Ranks ranks(1);
  EXPECT_EQ(ranks.choices[0]->propose(step_shape(64, true), 1).reason, MicroBatchReason::kTrial);
  ranks.take(126, {64}, kTwoIsBest);
  int trials = 0;
  for (std::int64_t step = 126; step < 189; ++step) {
    const MicroBatchWish wish = ranks.choices[0]->propose(step_shape(64, true), step);
    trials += wish.reason == MicroBatchReason::kTrial ? 1 : 0;
    EXPECT_TRUE(wish.reason == MicroBatchReason::kTrial || wish.count == 2);
  }
  EXPECT_EQ(trials, 3) << "one of each number in a probe period";
}

TEST(MicroBatchChoice, NumbersThatAreNoneOfTheChoicesAreLeftOut) {
  Ranks ranks(1);
  ranks.choices[0]->record(step_shape(3, true), 3, 0, 1.0, 0.5);  // three rows cannot be in four micro-batches
  EXPECT_EQ(ranks.choices[0]->propose(step_shape(3, true), 0).count, 1);
}

}  // namespace
}  // namespace lockstep::scheduler
