// Goal    The tracker's figures equal those of all samples kept in a plain list, in bounded memory, from any number of threads.
// Method  Random samples (the seed is printed) against a naive reference; ManualClock for the log interval.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "lockstep/forward_context.hpp"
#include "tests/support/manual_clock.hpp"

namespace lockstep {
namespace {

using Stats = ForwardTimingTracker::Stats;

/// Keeps everything; percentiles over the newest kSamplesPerSize by sorting.
class NaiveTracker {
 public:
  void record(std::int32_t batch_size, double duration_ms) { samples_[batch_size].push_back(duration_ms); }

  [[nodiscard]] std::vector<Stats> get_stats() const {
    std::vector<Stats> result;
    for (const auto& [batch_size, all] : samples_) {
      const std::size_t kept = std::min(all.size(), ForwardTimingTracker::kSamplesPerSize);
      std::vector<double> newest(all.end() - static_cast<std::ptrdiff_t>(kept), all.end());
      std::ranges::sort(newest);
      double sum = 0;
      for (const double sample : all) {
        sum += sample;
      }
      result.push_back({.batch_size = batch_size,
                        .count = all.size(),
                        .mean_ms = sum / static_cast<double>(all.size()),
                        .p50_ms = interpolate(newest, 0.5),
                        .p99_ms = interpolate(newest, 0.99),
                        .min_ms = *std::ranges::min_element(all),
                        .max_ms = *std::ranges::max_element(all)});
    }
    return result;
  }

 private:
  static double interpolate(const std::vector<double>& sorted, double fraction) {
    const double position = fraction * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(std::floor(position));
    const auto above = static_cast<std::size_t>(std::ceil(position));
    return std::lerp(sorted[below], sorted[above], position - std::floor(position));
  }

  std::map<std::int32_t, std::vector<double>> samples_;
};

void expect_same(const std::vector<Stats>& actual, const std::vector<Stats>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "batch size " << expected[i].batch_size);
    EXPECT_EQ(actual[i].batch_size, expected[i].batch_size);
    EXPECT_EQ(actual[i].count, expected[i].count);
    EXPECT_NEAR(actual[i].mean_ms, expected[i].mean_ms, 1e-9);
    EXPECT_NEAR(actual[i].p50_ms, expected[i].p50_ms, 1e-9);
    EXPECT_NEAR(actual[i].p99_ms, expected[i].p99_ms, 1e-9);
    EXPECT_EQ(actual[i].min_ms, expected[i].min_ms);
    EXPECT_EQ(actual[i].max_ms, expected[i].max_ms);
  }
}

TEST(ForwardTimingTracker, HasNoFiguresBeforeTheFirstSample) {
  EXPECT_TRUE(ForwardTimingTracker().get_stats().empty());
}

TEST(ForwardTimingTracker, GivesOneSampleAsAllItsFigures) {
  ForwardTimingTracker tracker;
  tracker.record(8, 2.5);
  expect_same(tracker.get_stats(), {{.batch_size = 8, .count = 1, .mean_ms = 2.5, .p50_ms = 2.5, .p99_ms = 2.5, .min_ms = 2.5, .max_ms = 2.5}});
}

TEST(ForwardTimingTracker, InterpolatesPercentilesBetweenNeighbours) {
  ForwardTimingTracker tracker;
  for (const double sample : {4.0, 1.0, 3.0, 2.0}) {
    tracker.record(1, sample);
  }
  const Stats stats = tracker.get_stats().front();
  EXPECT_DOUBLE_EQ(stats.p50_ms, 2.5);
  EXPECT_DOUBLE_EQ(stats.p99_ms, 3.97);
}

class RandomSamples : public testing::TestWithParam<std::uint32_t> {};

TEST_P(RandomSamples, GiveTheFiguresOfAPlainListOfAllSamples) {
  std::mt19937 random(GetParam());
  std::lognormal_distribution<double> duration(1.0, 0.8);
  // Few sizes, some of them often enough to go round the ring several times; zero and negative are keys like others.
  std::discrete_distribution<int> pick{40, 20, 10, 5, 1, 1};
  const std::array<std::int32_t, 6> sizes{1, 8, 512, 0, -3, std::numeric_limits<std::int32_t>::max()};
  ForwardTimingTracker tracker;
  NaiveTracker naive;
  for (int i = 0; i < 3000; ++i) {
    const std::int32_t size = sizes[static_cast<std::size_t>(pick(random))];
    const double sample = duration(random);
    tracker.record(size, sample);
    naive.record(size, sample);
    if (i % 250 == 0) {
      expect_same(tracker.get_stats(), naive.get_stats());
    }
  }
  expect_same(tracker.get_stats(), naive.get_stats());
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomSamples, testing::Range(1U, 6U), [](const auto& seed) { return "Seed" + std::to_string(seed.param); });

TEST(ForwardTimingTracker, FindsEverySizeOfAFullTableAgain) {
  constexpr auto kSizes = static_cast<std::int32_t>(ForwardTimingTracker::kMaxSizes);
  // Strides that make the table's probes collide in different ways.
  for (const std::int32_t stride : {1, 2, 128, 4096, 65536, 33554432}) {
    ForwardTimingTracker tracker;
    NaiveTracker naive;
    for (int round = 0; round < 3; ++round) {
      for (std::int32_t i = 0; i < kSizes; ++i) {
        tracker.record(i * stride, i + round);
        naive.record(i * stride, i + round);
      }
    }
    expect_same(tracker.get_stats(), naive.get_stats());
  }
}

TEST(ForwardTimingTracker, PutsSizesBeyondItsTableIntoTheLastRecordUnderTheLargest) {
  constexpr auto kSizes = static_cast<std::int32_t>(ForwardTimingTracker::kMaxSizes);
  ForwardTimingTracker tracker;
  for (std::int32_t size = 1; size <= kSizes; ++size) {
    tracker.record(size, 1.0);
  }
  tracker.record(9000, 5.0);
  tracker.record(100, 3.0);
  tracker.record(kSizes, 2.0);  // the last one with a record of its own still lands in it
  tracker.record(1, 7.0);       // the others keep theirs
  const std::vector<Stats> stats = tracker.get_stats();
  ASSERT_EQ(stats.size(), ForwardTimingTracker::kMaxSizes);
  EXPECT_EQ(stats.front().batch_size, 1);
  EXPECT_EQ(stats.front().count, 2U);
  EXPECT_EQ(stats.back().batch_size, 9000);
  EXPECT_EQ(stats.back().count, 4U);
  EXPECT_DOUBLE_EQ(stats.back().max_ms, 5.0);
  EXPECT_DOUBLE_EQ(stats.back().mean_ms, 11.0 / 4);
}

TEST(ForwardTimingTracker, IgnoresDurationsThatAreNotFinite) {
  ForwardTimingTracker tracker;
  tracker.record(4, std::numeric_limits<double>::quiet_NaN());
  tracker.record(4, std::numeric_limits<double>::infinity());
  EXPECT_TRUE(tracker.get_stats().empty());
  tracker.record(4, 1.0);
  EXPECT_EQ(tracker.get_stats().front().count, 1U);
}

TEST(ForwardTimingTracker, StartsAnewAfterClear) {
  ForwardTimingTracker tracker;
  for (std::int32_t size = 0; size < 100; ++size) {
    tracker.record(size, 9.0);
  }
  tracker.clear();
  EXPECT_TRUE(tracker.get_stats().empty());
  tracker.record(5, 1.0);
  expect_same(tracker.get_stats(), {{.batch_size = 5, .count = 1, .mean_ms = 1, .p50_ms = 1, .p99_ms = 1, .min_ms = 1, .max_ms = 1}});
}

TEST(ForwardTimingTracker, AsksForALogLineOncePerInterval) {
  test::ManualClock clock;
  ForwardTimingTracker tracker(std::chrono::seconds(60), clock);
  EXPECT_FALSE(tracker.should_log());
  clock.advance(std::chrono::seconds(60) - Duration(1));
  EXPECT_FALSE(tracker.should_log());
  clock.advance(Duration(1));
  EXPECT_TRUE(tracker.should_log());
  EXPECT_FALSE(tracker.should_log());
  clock.advance(std::chrono::minutes(10));
  EXPECT_TRUE(tracker.should_log()) << "one line for ten missed intervals";
  EXPECT_FALSE(tracker.should_log());
}

TEST(ForwardTimingTracker, AsksOnlyOneOfManyThreadsForTheLogLine) {
  test::ManualClock clock;
  ForwardTimingTracker tracker(std::chrono::seconds(1), clock);
  clock.advance(std::chrono::seconds(1));
  std::atomic<int> lines{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { lines += tracker.should_log() ? 1 : 0; });
  }
  threads.clear();
  EXPECT_EQ(lines, 1);
}

TEST(ForwardTimingTracker, LosesNoSampleWhenThreadsRecordReadAndLogAtOnce) {
  constexpr int kThreads = 4;
  constexpr int kRecords = 20000;
  ForwardTimingTracker tracker;
  std::atomic<bool> done{false};
  std::jthread reader([&] {
    std::uint64_t last = 0;
    while (!done) {
      std::uint64_t count = 0;
      for (const Stats& stats : tracker.get_stats()) {
        count += stats.count;
        EXPECT_GE(stats.p50_ms, stats.min_ms);
        EXPECT_LE(stats.p99_ms, stats.max_ms);
      }
      EXPECT_GE(count, last);
      last = count;
    }
  });
  {
    std::vector<std::jthread> writers;
    for (int thread = 0; thread < kThreads; ++thread) {
      writers.emplace_back([&tracker, thread] {
        for (int i = 0; i < kRecords; ++i) {
          tracker.record(i % 7, thread + 1);
        }
      });
    }
  }
  done = true;
  reader.join();
  std::uint64_t count = 0;
  double sum = 0;
  for (const Stats& stats : tracker.get_stats()) {
    count += stats.count;
    sum += stats.mean_ms * static_cast<double>(stats.count);
  }
  EXPECT_EQ(count, std::uint64_t{kThreads} * kRecords);
  EXPECT_NEAR(sum, kRecords * (1.0 + 2 + 3 + 4), 1e-3);
}

}  // namespace
}  // namespace lockstep
