// Goal    Exposed exchange time is what lies outside of all computation, whatever overlaps what, with what stages lose of their core, and every entry is told
// as a span. Method  Programs of a few entries with times set by hand; the sum over a grid of microseconds is the reference.
#include "scheduler/step/timing/step_spans.hpp"

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::scheduler {
namespace {

using std::chrono::microseconds;

TimePoint at(int us) {
  return TimePoint{} + microseconds(us);
}

ProgramEntry entry(Stage stage, std::int32_t micro_batch = 0) {
  const bool exchange = stage == Stage::kDispatch || stage == Stage::kCombine;
  return {.stage = stage, .micro_batch = micro_batch, .layer = 3, .stream = exchange ? StreamRole::kComm : StreamRole::kCompute};
}

struct RecordingObserver final : StepObserver {
  void on_span(const SpanRecord& record) override { spans.push_back(record); }
  std::vector<SpanRecord> spans;
};

TEST(StepSpans, ExchangesAreExposedWholeWhenNothingElseRuns) {
  const std::vector<ProgramEntry> program{entry(Stage::kAttention), entry(Stage::kDispatch), entry(Stage::kExperts), entry(Stage::kCombine)};
  StepSpans spans(program.size());
  spans.start(program);
  for (int i = 0; i < 4; ++i) {
    spans.set(program[static_cast<std::size_t>(i)], at(10 * i), at(10 * i + 10));
  }
  const ExchangeTimes times = spans.exchange_times();
  EXPECT_EQ(times.dispatch, microseconds(10));
  EXPECT_EQ(times.dispatch_exposed, microseconds(10));
  EXPECT_EQ(times.combine_exposed, microseconds(10));
}

TEST(StepSpans, WhatIsComputedUnderAnExchangeHidesIt) {
  const std::vector<ProgramEntry> program{entry(Stage::kAttention), entry(Stage::kDispatch), entry(Stage::kAttention, 1), entry(Stage::kDispatch, 1),
                                          entry(Stage::kExperts)};
  StepSpans spans(program.size());
  spans.start(program);
  spans.set(program[0], at(0), at(10));
  spans.set(program[1], at(10), at(40));  // the second attention covers 15 of its 30
  spans.set(program[2], at(10), at(25));
  spans.set(program[3], at(40), at(60));  // the experts cover all of it
  spans.set(program[4], at(38), at(70));
  const ExchangeTimes times = spans.exchange_times();
  EXPECT_EQ(times.dispatch, microseconds(50));
  EXPECT_EQ(times.dispatch_exposed, microseconds(30 - 15 - 2));
  EXPECT_EQ(times.combine, microseconds(0));
}

TEST(StepSpans, AStageWithoutACoreHidesNothing) {
  const std::vector<ProgramEntry> program{entry(Stage::kAttention), entry(Stage::kDispatch), entry(Stage::kAttention, 1), entry(Stage::kDispatch, 1),
                                          entry(Stage::kExperts)};
  StepSpans spans(program.size());
  spans.start(program);
  spans.set(program[0], at(0), at(10), microseconds(9));  // under no exchange: what took its core is not the step's exchange
  spans.set(program[1], at(10), at(40));
  spans.set(program[2], at(10), at(25), microseconds(4));
  spans.set(program[3], at(40), at(60));
  spans.set(program[4], at(38), at(70), microseconds(25));  // 2 under the first exchange, 20 under the second, the rest after it
  const ExchangeTimes times = spans.exchange_times();
  EXPECT_EQ(times.dispatch, microseconds(50));
  EXPECT_EQ(times.dispatch_exposed, microseconds((30 - 15 - 2) + 4 + 2 + 20));
  EXPECT_EQ(times.core_lost, microseconds(26));
  RecordingObserver observer;
  spans.tell(observer, 1, true);
  EXPECT_EQ(observer.spans[2].off_core, microseconds(4));
  EXPECT_EQ(observer.spans[3].off_core, microseconds(0));
}

TEST(StepSpans, ExposedTimeIsThatOfAReferenceThatCountsMicroseconds) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> gap(0, 4);
  std::uniform_int_distribution<int> length(0, 9);
  std::bernoulli_distribution exchanges(0.5);
  for (int round = 0; round < 300; ++round) {
    std::vector<ProgramEntry> program;
    for (int i = 0; i < 20; ++i) {
      program.push_back(entry(exchanges(random) ? (i % 3 == 0 ? Stage::kCombine : Stage::kDispatch) : Stage::kExperts));
    }
    StepSpans spans(program.size());
    spans.start(program);
    int comm_begin = 0;
    int compute_end = 0;
    std::vector<bool> computing(400, false);
    std::vector<bool> exchanging(400, false);
    std::vector<std::array<int, 3>> stages;  // begin, end, time without a core
    for (const ProgramEntry& each : program) {
      const bool exchanges_rows = each.stream == StreamRole::kComm;
      int& next_begin = exchanges_rows ? comm_begin : compute_end;
      const int begin = next_begin + gap(random);
      const int end = begin + length(random);
      next_begin = exchanges_rows ? begin : end;  // exchanges overlap each other
      const int off_core = exchanges_rows || end == begin ? 0 : gap(random) % (end - begin + 1);
      spans.set(each, at(begin), at(end), microseconds(off_core));
      stages.push_back({begin, end, off_core});
      std::vector<bool>& marked = exchanges_rows ? exchanging : computing;
      std::fill(marked.begin() + begin, marked.begin() + end, true);
    }
    int exposed = 0;
    int core_lost = 0;
    for (const auto& [begin, end, off_core] : stages) {
      core_lost += std::min(off_core, static_cast<int>(std::count(exchanging.begin() + begin, exchanging.begin() + end, true)));
    }
    for (std::size_t us = 0; us < computing.size(); ++us) {
      exposed += exchanging[us] && !computing[us] ? 1 : 0;
    }
    const ExchangeTimes times = spans.exchange_times();
    EXPECT_EQ(times.dispatch_exposed + times.combine_exposed, microseconds(exposed + core_lost)) << "round " << round;
    EXPECT_EQ(times.core_lost, microseconds(core_lost)) << "round " << round;
  }
}

TEST(StepSpans, EveryEntryIsToldWithItsLane) {
  const std::vector<ProgramEntry> program{entry(Stage::kHead), entry(Stage::kCombine, 1)};
  StepSpans spans(program.size());
  spans.start(program);
  spans.set(program[0], at(1), at(2));
  spans.set(program[1], at(3), at(5));
  RecordingObserver observer;
  spans.tell(observer, 17, true);
  spans.tell(observer, 18, false);
  ASSERT_EQ(observer.spans.size(), 4U);
  EXPECT_EQ(span_kind_name(observer.spans[0].kind), "head");
  EXPECT_EQ(observer.spans[0].lane, SpanLane::kCompute);
  EXPECT_EQ(span_kind_name(observer.spans[1].kind), "combine");
  EXPECT_EQ(observer.spans[1].lane, SpanLane::kComm);
  EXPECT_EQ(observer.spans[1].micro_batch, 1);
  EXPECT_EQ(observer.spans[1].layer, 3);
  EXPECT_EQ(observer.spans[1].step, 17);
  EXPECT_EQ(observer.spans[1].end - observer.spans[1].begin, microseconds(2));
  EXPECT_EQ(observer.spans[3].lane, SpanLane::kStep);
}

}  // namespace
}  // namespace lockstep::scheduler
