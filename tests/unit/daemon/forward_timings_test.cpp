// Goal    GET /debug/forward_timings and the summary in /metrics say what the tracker holds.
// Method  A tracker with known samples; the JSON is parsed, the text compared.
#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/metrics/forward/forward_timings_body.hpp"
#include "daemon/metrics/metrics.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ForwardTimings, AreListedByBatchSizeWithAllFigures) {
  ForwardTimingTracker tracker;
  tracker.record(16, 4.0);
  tracker.record(8, 1.0);
  tracker.record(8, 3.0);
  const boost::json::value body = boost::json::parse(forward_timings_body(tracker));
  const boost::json::array& sizes = body.at("batch_sizes").as_array();
  ASSERT_EQ(sizes.size(), 2U);
  EXPECT_EQ(sizes[0].at("batch_size").as_int64(), 8);
  EXPECT_EQ(sizes[0].at("count").to_number<std::int64_t>(), 2);
  EXPECT_DOUBLE_EQ(sizes[0].at("mean_ms").as_double(), 2.0);
  EXPECT_DOUBLE_EQ(sizes[0].at("p50_ms").as_double(), 2.0);
  EXPECT_DOUBLE_EQ(sizes[0].at("p99_ms").as_double(), 2.98);
  EXPECT_DOUBLE_EQ(sizes[0].at("min_ms").as_double(), 1.0);
  EXPECT_DOUBLE_EQ(sizes[0].at("max_ms").as_double(), 3.0);
  EXPECT_EQ(sizes[1].at("batch_size").as_int64(), 16);
}

TEST(ForwardTimings, AreAnEmptyListBeforeTheFirstPass) {
  EXPECT_EQ(forward_timings_body(ForwardTimingTracker()), R"({"batch_sizes":[]})");
}

TEST(ForwardTimings, AreASummaryInTheMetrics) {
  ForwardTimingTracker tracker;
  const auto metrics = Metrics::create({.rank = 3, .world_size = 4, .forward_timings = &tracker});
  EXPECT_THAT(metrics->text(), Not(HasSubstr("lockstep_forward_duration_seconds_count")));
  tracker.record(8, 1000.0);
  tracker.record(8, 3000.0);
  const std::string text = metrics->text();
  EXPECT_THAT(text, HasSubstr("lockstep_forward_duration_seconds_count{rank=\"3\",batch_size=\"8\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_forward_duration_seconds_sum{rank=\"3\",batch_size=\"8\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_forward_duration_seconds{rank=\"3\",batch_size=\"8\",quantile=\"0.5\"} 2\n"));
}

}  // namespace
}  // namespace lockstep::daemon
