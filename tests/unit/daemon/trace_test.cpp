// Goal    The trace holds the newest complete steps whole, also while they are written and overwritten; its JSON is what Perfetto reads.
// Method  A small ring that wraps; a writer and a reader at the same time; the JSON is parsed.
#include <array>
#include <map>
#include <thread>

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/trace/chrome_trace.hpp"
#include "daemon/trace/trace_observer.hpp"
#include "daemon/trace/trace_ring.hpp"
#include "daemon/trace/trace_route.hpp"

namespace lockstep::daemon {
namespace {

using scheduler::SpanKind;
using scheduler::SpanLane;
using scheduler::SpanRecord;
using std::chrono::nanoseconds;
using ::testing::HasSubstr;

SpanRecord span_of(std::int64_t step, int index) {
  return {.kind = SpanKind::kExperts,
          .lane = SpanLane::kComm,
          .layer = index,
          .micro_batch = index % 2,
          .step = step,
          .begin = TimePoint(nanoseconds(step * 1000 + index)),
          .end = TimePoint(nanoseconds(step * 2000 + index))};
}

void push_step(TraceRing& ring, std::int64_t step, int spans) {
  for (int i = 0; i < spans; ++i) {
    ring.push(span_of(step, i));
  }
  ring.complete(step);
}

TEST(TraceRing, GivesTheNewestCompleteStepsInOrder) {
  TraceRing ring(64);
  EXPECT_TRUE(ring.last_steps(5).empty());
  for (std::int64_t step = 0; step < 4; ++step) {
    push_step(ring, step, 3);
  }
  ring.push(span_of(4, 0));  // not complete
  const auto spans = ring.last_steps(2);
  ASSERT_EQ(spans.size(), 6U);
  EXPECT_EQ(spans.front().step, 2);
  EXPECT_EQ(spans.back().step, 3);
  EXPECT_EQ(spans[1].layer, 1);
  EXPECT_EQ(spans[1].micro_batch, 1);
  EXPECT_EQ(spans[1].kind, SpanKind::kExperts);
  EXPECT_EQ(spans[1].lane, SpanLane::kComm);
  EXPECT_EQ(spans[1].begin, TimePoint(nanoseconds(2001)));
  EXPECT_EQ(spans[1].end, TimePoint(nanoseconds(4001)));
}

TEST(TraceRing, NoLayerAndNoMicroBatchStayNone) {
  TraceRing ring(8);
  ring.push({.kind = SpanKind::kAgree, .step = 0});
  ring.complete(0);
  ASSERT_EQ(ring.last_steps(1).size(), 1U);
  EXPECT_EQ(ring.last_steps(1)[0].layer, -1);
  EXPECT_EQ(ring.last_steps(1)[0].micro_batch, -1);
}

TEST(TraceRing, LeavesOutAStepOfWhichASpanWasOverwritten) {
  TraceRing ring(8);
  for (std::int64_t step = 0; step < 5; ++step) {
    push_step(ring, step, 3);  // 15 spans: 7 to 14 are held, of steps 2 (from its second span on), 3 and 4
  }
  const auto spans = ring.last_steps(100);
  ASSERT_EQ(spans.size(), 6U);
  EXPECT_EQ(spans.front().step, 3);
}

TEST(TraceRing, AReaderSeesWholeSpansOfWholeStepsWhileTheyAreOverwritten) {
  constexpr std::int64_t kSteps = 30'000;
  constexpr std::size_t kSpansPerStep = 5;
  TraceRing ring(64);
  std::thread writer([&ring] {
    for (std::int64_t step = 0; step < kSteps; ++step) {
      push_step(ring, step, kSpansPerStep);
    }
  });
  bool over = false;
  while (!over) {
    const auto spans = ring.last_steps(kSteps);
    std::map<std::int64_t, std::size_t> per_step;
    for (const SpanRecord& span : spans) {
      const SpanRecord expected = span_of(span.step, span.layer);
      ASSERT_EQ(span.begin, expected.begin);
      ASSERT_EQ(span.end, expected.end);
      ASSERT_EQ(span.micro_batch, expected.micro_batch);
      ++per_step[span.step];
    }
    for (const auto& [step, count] : per_step) {
      ASSERT_EQ(count, kSpansPerStep) << "step " << step;
    }
    over = per_step.contains(kSteps - 1);
  }
  writer.join();
}

struct StepCounter final : scheduler::StepObserver {
  void on_step(const scheduler::StepRecord&) override { ++steps; }
  int steps = 0;
};

TEST(TraceObserver, KeepsSpansAndPassesStepsOn) {
  StepCounter counter;
  TraceObserver observer(counter);
  observer.on_span(span_of(0, 0));
  EXPECT_TRUE(observer.ring().last_steps(1).empty());
  observer.on_step({.step = 0});
  EXPECT_EQ(observer.ring().last_steps(1).size(), 1U);
  EXPECT_EQ(counter.steps, 1);
}

TEST(TraceObserver, WantsTheDevicesTimesForAWhileAfterATraceWasTaken) {
  StepCounter counter;
  const TraceObserver observer(counter);
  EXPECT_FALSE(observer.wants_device_times());
  const TimePoint before = SteadyClock::instance().now();
  EXPECT_TRUE(observer.ring().last_steps(1).empty());
  EXPECT_TRUE(observer.ring().is_watched(before + kTraceWatched - std::chrono::seconds(1)));
  EXPECT_FALSE(observer.ring().is_watched(SteadyClock::instance().now() + kTraceWatched));
  EXPECT_TRUE(observer.wants_device_times());
}

TEST(ChromeTrace, ADevicesStreamsHaveLinesWhereItHasToldItsTimes) {
  SpanRecord computes = span_of(7, 2);
  computes.lane = SpanLane::kDeviceCompute;
  SpanRecord travels = span_of(7, 3);  // of micro-batch 1
  travels.lane = SpanLane::kDeviceComm;
  const std::array ranks{RankTrace{.rank = 0, .spans = {span_of(7, 2)}}, RankTrace{.rank = 1, .spans = {computes, travels}}};
  const boost::json::value trace = boost::json::parse(chrome_trace(ranks));
  std::map<std::pair<std::int64_t, std::int64_t>, std::string> names;
  std::vector<std::string> lines;
  for (const boost::json::value& event : trace.at("traceEvents").as_array()) {
    if (event.at("name").as_string() == "thread_name") {
      names[{event.at("pid").as_int64(), event.at("tid").as_int64()}] = event.at("args").at("name").as_string();
    } else if (event.at("ph").as_string() == "X") {
      lines.push_back(names.at({event.at("pid").as_int64(), event.at("tid").as_int64()}));
    }
  }
  EXPECT_THAT(lines, ::testing::ElementsAre("exchanges of micro-batch 0", "device: compute stream", "device: exchanges of micro-batch 1"));
  EXPECT_EQ(names.count({0, 6}), 0U) << "a rank that computes on its host has no lines of a device";
}

TEST(ChromeTrace, IsJsonWithOneProcessARankOnOneClock) {
  const nanoseconds ahead(5'000'000'000'000'123);
  RankTrace first{.rank = 0, .spans = {span_of(7, 2)}};
  RankTrace second{.rank = 1, .clock_offset = ahead, .spans = {span_of(7, 2), {.kind = SpanKind::kPlan, .step = 8}}};
  second.spans[0].begin += ahead;
  second.spans[0].end += ahead;
  second.spans[1].begin = second.spans[1].end = TimePoint(ahead);
  const std::array ranks{first, second};
  const boost::json::value trace = boost::json::parse(chrome_trace(ranks));
  std::vector<boost::json::object> spans;
  std::size_t names = 0;
  for (const boost::json::value& event : trace.at("traceEvents").as_array()) {
    if (event.at("ph").as_string() == "X") {
      spans.push_back(event.as_object());
    } else {
      names += event.at("name").as_string() == "process_name" ? 1 : 0;
    }
  }
  EXPECT_EQ(names, 2U);
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[0].at("name").as_string(), "experts");
  EXPECT_DOUBLE_EQ(spans[0].at("ts").to_number<double>(), 7.002);
  EXPECT_DOUBLE_EQ(spans[1].at("ts").to_number<double>(), 7.002) << "the same moment on the other clock";
  EXPECT_DOUBLE_EQ(spans[1].at("dur").to_number<double>(), 7.0);
  EXPECT_EQ(spans[1].at("pid").to_number<int>(), 1);
  EXPECT_EQ(spans[1].at("tid").to_number<int>(), 2);
  EXPECT_EQ(spans[1].at("args").at("layer").to_number<int>(), 2);
  EXPECT_EQ(spans[1].at("args").at("micro_batch").to_number<int>(), 0);
  EXPECT_FALSE(spans[2].at("args").as_object().contains("layer"));
}

TEST(ChromeTrace, OfNothingIsJsonToo) {
  EXPECT_TRUE(boost::json::parse(chrome_trace({})).at("traceEvents").as_array().empty());
}

TEST(TraceRoute, AQuerySaysHowManyStepsAndWhose) {
  EXPECT_EQ(parse_trace_query("", 1, 4)->steps, kTraceStepsDefault);
  EXPECT_EQ(parse_trace_query("", 1, 4)->rank, std::nullopt);
  EXPECT_EQ(parse_trace_query("steps=1", 1, 4)->steps, 1);
  EXPECT_EQ(parse_trace_query("ranks=local&steps=10000", 1, 4)->steps, kTraceStepsMax);
  EXPECT_EQ(parse_trace_query("steps=3&ranks=local", 1, 4)->rank, 1);
  EXPECT_EQ(parse_trace_query("ranks=all", 1, 4)->rank, std::nullopt);
  EXPECT_EQ(parse_trace_query("rank=0", 1, 4)->rank, 0);
  EXPECT_EQ(parse_trace_query("steps=7&rank=3", 1, 4)->rank, 3);
}

TEST(TraceRoute, AnythingElseIsRefusedWithTheValueAndWhatWasExpected) {
  const std::string long_value(50'000, 'y');
  const std::vector<std::pair<std::string, std::string>> wrong{{"steps=", "steps is \"\"; expected a number from 1 to 10000"},
                                                               {"steps=0", "\"0\""},
                                                               {"steps=-1", "\"-1\""},
                                                               {"steps=10001", "\"10001\""},
                                                               {"steps=1x", "\"1x\""},
                                                               {"steps=99999999999999999999", "\"99999999999999999999\""},
                                                               {"step=1", "\"step=1\"; expected steps=N, and one of rank=R, ranks=local and ranks=all"},
                                                               {"steps=1&x=2", "\"x=2\""},
                                                               {"steps", "steps is \"\""},
                                                               {"steps=1&steps=2", "\"steps=2\""},
                                                               {"ranks=", "ranks is \"\"; expected all or local"},
                                                               {"ranks=0", "ranks is \"0\""},
                                                               {"rank=", "rank is \"\"; expected a number from 0 to 3"},
                                                               {"rank=4", "rank is \"4\"; expected a number from 0 to 3"},
                                                               {"rank=-1", "\"-1\""},
                                                               {"rank=all", "\"all\""},
                                                               {"rank=1&ranks=all", "\"ranks=all\""},
                                                               {"&steps=1", "\"\""},
                                                               {"=1", "\"=1\""},
                                                               {"steps=\xff<\x01\"", "\"?<?"},
                                                               {"steps=" + long_value, "\"" + std::string(40, 'y') + "...\""}};
  for (const auto& [query, message] : wrong) {
    const auto parsed = parse_trace_query(query, 1, 4);
    ASSERT_FALSE(parsed.has_value()) << query;
    EXPECT_THAT(parsed.error().message, HasSubstr(message)) << query;
  }
}

}  // namespace
}  // namespace lockstep::daemon
