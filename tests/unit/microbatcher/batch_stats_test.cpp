// Goal    BatchStats counts what happened, its averages never divide by zero, and its percentiles are those of the newest waits.
// Method  Known inputs to the recorder; the JSON is read back by Boost.JSON.
#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include "lockstep/microbatcher.hpp"

namespace lockstep {
namespace {

using std::chrono::milliseconds;

TEST(BatchStats, AreAllZeroBeforeTheFirstBatch) {
  const BatchStats stats = BatchStatsRecorder().snapshot();
  EXPECT_EQ(stats.avg_batch_size(), 0);
  EXPECT_EQ(stats.avg_wait_time_ms(), 0);
  EXPECT_EQ(stats.wait_p50_ms, 0);
  EXPECT_EQ(stats.wait_p99_ms, 0);
}

TEST(BatchStats, PercentilesAreByNearestRankAndAveragesOverAll) {
  BatchStatsRecorder recorder;
  for (int wait = 100; wait >= 1; --wait) {
    recorder.add_wait(milliseconds(wait));
  }
  recorder.add_batch(60);
  recorder.add_batch(40);
  const BatchStats stats = recorder.snapshot();
  EXPECT_EQ(stats.total_items, 100U);
  EXPECT_EQ(stats.total_batches, 2U);
  EXPECT_EQ(stats.max_batch_size, 60U);
  EXPECT_DOUBLE_EQ(stats.avg_batch_size(), 50);
  EXPECT_DOUBLE_EQ(stats.avg_wait_time_ms(), 50.5);
  EXPECT_EQ(stats.wait_p50_ms, 50);
  EXPECT_EQ(stats.wait_p99_ms, 99);
}

TEST(BatchStats, PercentilesForgetWaitsOlderThanTheRing) {
  BatchStatsRecorder recorder;
  for (std::size_t i = 0; i < BatchStatsRecorder::kWaitsKept; ++i) {
    recorder.add_wait(milliseconds(1000));
  }
  EXPECT_EQ(recorder.snapshot().wait_p50_ms, 1000);
  for (std::size_t i = 0; i < BatchStatsRecorder::kWaitsKept; ++i) {
    recorder.add_wait(milliseconds(1));
  }
  const BatchStats stats = recorder.snapshot();
  EXPECT_EQ(stats.wait_p50_ms, 1);
  EXPECT_EQ(stats.wait_p99_ms, 1);
  EXPECT_DOUBLE_EQ(stats.total_wait_ms, 1001.0 * BatchStatsRecorder::kWaitsKept);
}

TEST(BatchStats, ToJsonHasEachMemberAndBothAverages) {
  BatchStatsRecorder recorder;
  recorder.add_batch(3);
  for (const int wait : {1, 2, 6}) {
    recorder.add_wait(milliseconds(wait));
  }
  recorder.add_failures(2);
  recorder.add_cancelled(4);
  recorder.add_refused();
  const boost::json::value json = boost::json::parse(recorder.snapshot().to_json());
  const boost::json::value expected = boost::json::parse(R"({"total_items":3,"total_batches":1,"failures":2,"cancelled":4,"refused":1,"max_batch_size":3,
      "avg_batch_size":3,"total_wait_ms":9,"avg_wait_time_ms":3,"wait_p50_ms":2,"wait_p99_ms":6})");
  ASSERT_EQ(json.as_object().size(), expected.as_object().size());
  for (const auto& [key, value] : expected.as_object()) {
    EXPECT_EQ(json.at(key).to_number<double>(), value.to_number<double>()) << key;
  }
}

}  // namespace
}  // namespace lockstep
