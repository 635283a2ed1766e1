// Goal    The adaptive size is within one step of the best after ten micro-batches and stays there, on every cost model; memory pressure wins over time.
// Method  The controller alone, fed with the times of a cost model; the best step is found by trying all of them. Noise has printed seeds.
#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/micro_batch.hpp"

namespace lockstep {
namespace {

using Cost = std::function<double(std::int32_t rows)>;
constexpr double kTarget = 10;

/// The largest step whose time is within the band around the target: fewest micro-batches at the time asked for.
std::size_t best_level(const std::vector<std::int32_t>& ladder, const Cost& cost) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < ladder.size(); ++i) {
    if (cost(ladder[i]) <= 1.5 * kTarget) {
      best = i;
    }
  }
  return best;
}

void expect_settles(const Cost& cost, double noise, std::uint32_t seed, const MicroBatchSizerOptions& options = {.max_micro_batch = 1024}) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> factor(1 - noise, 1 + noise);
  MicroBatchSizer sizer(options);
  const auto best = static_cast<int>(best_level(sizer.ladder(), cost));
  for (int i = 0; i < 500; ++i) {
    if (i >= 10) {
      const int level = static_cast<int>(std::find(sizer.ladder().begin(), sizer.ladder().end(), sizer.size()) - sizer.ladder().begin());
      ASSERT_LE(std::abs(level - best), 1) << "after " << i << " micro-batches at " << sizer.size() << ", best "
                                           << sizer.ladder()[static_cast<std::size_t>(best)] << ", seed " << seed;
    }
    sizer.observe(sizer.size(), cost(sizer.size()) * factor(random), 0);
  }
}

TEST(MicroBatchSizer, SettlesOnLinearCosts) {
  for (double per_row = 0.01; per_row < 20; per_row *= 1.13) {
    expect_settles([per_row](std::int32_t rows) { return per_row * rows; }, 0, 0);
  }
}

TEST(MicroBatchSizer, SettlesOnLinearCostsWithTwentyPercentOfNoise) {
  std::uint32_t seed = 1;
  for (double per_row = 0.01; per_row < 20; per_row *= 1.13) {
    for (int i = 0; i < 20; ++i) {
      expect_settles([per_row](std::int32_t rows) { return per_row * rows; }, 0.2, seed++);
    }
  }
}

TEST(MicroBatchSizer, SettlesOnTheLargestWhereTheCostIsConstantAndLow) {
  for (const double cost : {0.001, 1.0, 4.0}) {
    expect_settles([cost](std::int32_t /*rows*/) { return cost; }, 0.2, 7);
  }
}

TEST(MicroBatchSizer, GoesBackAndStaysWhereASmallerSizeDoesNotHelp) {
  for (const double cost : {16.0, 50.0}) {
    MicroBatchSizer sizer({.max_micro_batch = 1024});
    for (int i = 0; i < 300; ++i) {
      sizer.observe(sizer.size(), cost, 0);
      EXPECT_TRUE(i < 10 || sizer.size() == 8) << "at " << sizer.size() << " after " << i;
    }
  }
}

TEST(MicroBatchSizer, SettlesBelowACachesSize) {
  std::uint32_t seed = 1000;
  for (const double noise : {0.0, 0.2}) {
    for (const std::int32_t cache_rows : {3, 8, 20, 40, 100, 300}) {
      for (const double per_row : {0.02, 0.05, 0.11, 0.3}) {
        for (const double beyond : {3.0, 5.0}) {
          const Cost cost = [=](std::int32_t rows) { return per_row * rows * (rows <= cache_rows ? 1 : beyond); };
          expect_settles(cost, noise, seed++);
        }
      }
    }
  }
}

TEST(MicroBatchSizer, AFixedPartOfTheCostDoesNotKeepItFromSettling) {
  expect_settles([](std::int32_t rows) { return 2 + 0.05 * rows; }, 0.2, 42);
  expect_settles([](std::int32_t rows) { return 4 + 0.5 * rows; }, 0.2, 43);
}

TEST(MicroBatchSizer, StaysBelowTheSizeThatFillsTheMemory) {
  for (const std::int32_t full_at : {12, 16, 33, 100, 512}) {
    MicroBatchSizer sizer({.max_micro_batch = 1024});
    for (int i = 0; i < 300; ++i) {
      if (i >= 10) {
        EXPECT_LT(sizer.size(), full_at) << "after " << i;
        EXPECT_GE(sizer.size() * 4, full_at) << "after " << i;
      }
      sizer.observe(sizer.size(), 0.01 * sizer.size(), 0.8 * sizer.size() / full_at);
    }
  }
}

TEST(MicroBatchSizer, HalvesAtEachObservationAtOrAboveTheThresholdWhateverTheTime) {
  MicroBatchSizer sizer({});
  for (const std::int32_t expected : {4, 2, 1, 1, 1}) {
    sizer.observe(sizer.size(), 0.001, 0.8);
    EXPECT_EQ(sizer.size(), expected);
  }
  sizer.observe(1, 0.001, 0.7);
  EXPECT_EQ(sizer.size(), 1) << "the pressure has not fallen by much";
}

TEST(MicroBatchSizer, GrowsAgainWhenOthersHaveFreedMuchMemory) {
  MicroBatchSizer sizer({});
  sizer.observe(8, 1, 0.9);
  ASSERT_EQ(sizer.size(), 4);
  sizer.observe(4, 1, 0.7);
  EXPECT_EQ(sizer.size(), 4);
  sizer.observe(4, 1, 0.3);
  EXPECT_GT(sizer.size(), 4);
}

TEST(MicroBatchSizer, AMemoryPressureThatIsNoNumberIsNotKept) {
  MicroBatchSizer sizer({.initial_micro_batch = 8, .max_micro_batch = 16, .target_time_ms = 10});
  sizer.observe(8, 4, 0.9);
  ASSERT_EQ(sizer.size(), 4);
  sizer.observe(4, 4, std::nan(""));
  for (int i = 0; i < 10; ++i) {
    sizer.observe(sizer.size(), 4, i < 5 ? 0.7 : 0.1);
  }
  EXPECT_EQ(sizer.size(), 16) << "others have freed much memory";
}

TEST(MicroBatchSizer, OneSlowSampleAmongFastOnesDoesNotMoveIt) {
  MicroBatchSizer sizer({});
  for (int i = 0; i < 50; ++i) {
    sizer.observe(8, i % 7 == 3 ? 100 : 10, 0);
    EXPECT_EQ(sizer.size(), 8);
  }
}

TEST(MicroBatchSizer, FollowsWhenTheCostChangesForGood) {
  MicroBatchSizer sizer({.max_micro_batch = 1024});
  double per_row = 0.1;
  const auto run = [&] {
    for (int i = 0; i < 150; ++i) {
      sizer.observe(sizer.size(), per_row * sizer.size(), 0);
    }
    return sizer.size();
  };
  EXPECT_EQ(run(), 64);
  per_row = 1;
  EXPECT_LE(run(), 15);
  per_row = 0.05;
  EXPECT_GE(run(), 100);
}

TEST(MicroBatchSizer, TheRestOfABatchSaysNothingAboutAStep) {
  MicroBatchSizer sizer({});
  for (int i = 0; i < 20; ++i) {
    sizer.observe(3, 1000, 0);
  }
  EXPECT_EQ(sizer.size(), 8);
}

TEST(MicroBatchSizer, TheLaddersStepsAreDoublesWithinTheLimits) {
  EXPECT_EQ(MicroBatchSizer({.initial_micro_batch = 12, .min_micro_batch = 2, .max_micro_batch = 60}).ladder(),
            (std::vector<std::int32_t>{2, 3, 6, 12, 24, 48, 60}));
  EXPECT_EQ(MicroBatchSizer({.initial_micro_batch = 8, .min_micro_batch = 8, .max_micro_batch = 8}).ladder(), (std::vector<std::int32_t>{8}));
  EXPECT_EQ(MicroBatchSizer({.initial_micro_batch = 500}).size(), 64);
}

TEST(MicroBatchSizer, BadInputIsRefused) {
  EXPECT_THROW(MicroBatchSizer({.initial_micro_batch = 0}), std::invalid_argument);
  EXPECT_THROW(MicroBatchSizer({.min_micro_batch = 0}), std::invalid_argument);
  EXPECT_THROW(MicroBatchSizer({.min_micro_batch = 65}), std::invalid_argument);
  EXPECT_THROW(MicroBatchSizer({.target_time_ms = 0}), std::invalid_argument);
  EXPECT_THROW(MicroBatchSizer({.target_time_ms = std::nan("")}), std::invalid_argument);
  EXPECT_THROW(MicroBatchSizer({.memory_threshold = 0}), std::invalid_argument);
  EXPECT_THROW(MicroBatchSizer({.memory_threshold = 1.5}), std::invalid_argument);
}

TEST(HostMemoryProbe, GivesAShareOfTheMemory) {
  const MemoryProbe probe = host_memory_probe();
  const double share = probe();
  EXPECT_GT(share, 0);
  EXPECT_LT(share, 1);
}

}  // namespace
}  // namespace lockstep
