// Goal    A rank proposes the faster of whole and split steps, for each shape by itself, and notices when the other one becomes faster.
// Method  Steps in simulated time: each takes what a table says; several ranks propose together, the least counts, as the agreement has it.
#include "scheduler/step/micro_batch_choice.hpp"

#include <algorithm>
#include <array>
#include <memory>
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
  /// `times_ms[micro-batches - 1]`. Returns how many of the steps were split.
  int take(int steps, const std::vector<std::int32_t>& rows, const std::array<double, 2>& times_ms) {
    int split = 0;
    for (int i = 0; i < steps; ++i, ++step) {
      std::int32_t agreed = 2;
      for (std::size_t rank = 0; rank < choices.size(); ++rank) {
        agreed = std::min(agreed, choices[rank]->propose(step_shape(rows[rank], true), step));
      }
      split += agreed == 2 ? 1 : 0;
      // A little noise, the same in each run.
      const double duration = times_ms[static_cast<std::size_t>(agreed - 1)] * (1.0 + 0.01 * static_cast<double>(step * 7 % 5));
      for (std::size_t rank = 0; rank < choices.size(); ++rank) {
        choices[rank]->record(step_shape(rows[rank], true), agreed, step, duration);
      }
    }
    return split;
  }
  std::vector<std::unique_ptr<MicroBatchChoice>> choices;
  std::int64_t step = 0;
};

TEST(MicroBatchChoice, SettlesOnTheFasterAndOnlyProbesTheOther) {
  for (const bool split_is_faster : {false, true}) {
    Ranks ranks(1);
    const std::array<double, 2> times = split_is_faster ? std::array{2.0, 1.5} : std::array{1.0, 1.2};
    ranks.take(100, {64}, times);
    const int split = ranks.take(640, {64}, times);
    EXPECT_EQ(split, split_is_faster ? 630 : 10);
  }
}

TEST(MicroBatchChoice, KnowsEachShapeByItself) {
  Ranks ranks(1);
  for (int round = 0; round < 20; ++round) {
    ranks.take(10, {512}, {4.0, 3.0});
    ranks.take(10, {8}, {0.2, 0.4});
  }
  EXPECT_GE(ranks.take(64, {512}, {4.0, 3.0}), 62);
  EXPECT_LE(ranks.take(64, {8}, {0.2, 0.4}), 2);
}

TEST(MicroBatchChoice, FollowsAChange) {
  Ranks ranks(1);
  ranks.take(200, {64}, {1.0, 2.0});
  ranks.take(64 * 40, {64}, {5.0, 2.0});
  EXPECT_GE(ranks.take(64, {64}, {5.0, 2.0}), 62);
}

TEST(MicroBatchChoice, RanksOfDifferentLoadTryBothAndComeToOne) {
  Ranks ranks(3);
  EXPECT_LE(ranks.take(64, {64, 2, 300}, {1.0, 0.6}), 62);
  EXPECT_GE(ranks.take(64, {64, 2, 300}, {1.0, 0.6}), 62);
  // A newcomer's shape is unknown to it: the group tries again, and comes back.
  ranks.take(64, {64, 200, 300}, {1.0, 0.6});
  EXPECT_GE(ranks.take(64, {64, 200, 300}, {1.0, 0.6}), 62);
}

TEST(MicroBatchChoice, ADifferenceWithinTheNoiseChangesNothing) {
  Ranks ranks(1);
  EXPECT_LE(ranks.take(1000, {64}, {1.0, 0.99}), 24) << "the first steps in turn, then one probe in 64";
}

}  // namespace
}  // namespace lockstep::scheduler
