// Goal    Spans travel between ranks as they were, nothing else is taken for spans, and all lie on one clock afterwards.
// Method  Encode, damage, decode; traces of two clocks whose difference is known.
#include "daemon/trace/merged_trace.hpp"

#include <atomic>
#include <limits>
#include <thread>

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/trace/trace_report.hpp"

namespace lockstep::daemon {
namespace {

using comm::ClockEstimate;
using comm::PeerReport;
using scheduler::SpanKind;
using scheduler::SpanRecord;
using std::chrono::nanoseconds;
using ::testing::HasSubstr;

SpanRecord span_of(SpanKind kind, std::int64_t step, std::int64_t begin_ns, std::int64_t end_ns) {
  return {.kind = kind, .step = step, .begin = TimePoint(nanoseconds(begin_ns)), .end = TimePoint(nanoseconds(end_ns))};
}

TEST(TraceReport, SpansComeBackAsTheyWere) {
  const std::vector<SpanRecord> sent{{.kind = SpanKind::kDeliver,
                                      .lane = scheduler::SpanLane::kComm,
                                      .layer = 93,
                                      .micro_batch = 3,
                                      .step = 1LL << 40,
                                      .begin = TimePoint(nanoseconds(1LL << 60)),
                                      .end = TimePoint(nanoseconds((1LL << 60) + 7)),
                                      .off_core = nanoseconds(6)},
                                     span_of(SpanKind::kPlan, 0, 0, 0)};
  const auto got = decode_spans(encode_spans(sent));
  ASSERT_TRUE(got);
  ASSERT_EQ(got->size(), 2U);
  EXPECT_EQ((*got)[0].kind, SpanKind::kDeliver);
  EXPECT_EQ((*got)[0].lane, scheduler::SpanLane::kComm);
  EXPECT_EQ((*got)[0].layer, 93);
  EXPECT_EQ((*got)[0].micro_batch, 3);
  EXPECT_EQ((*got)[0].step, 1LL << 40);
  EXPECT_EQ((*got)[0].begin, sent[0].begin);
  EXPECT_EQ((*got)[0].end, sent[0].end);
  EXPECT_EQ((*got)[0].off_core, nanoseconds(6));
  EXPECT_EQ((*got)[1].off_core, nanoseconds(0));
  EXPECT_EQ((*got)[1].layer, -1);
  EXPECT_EQ((*got)[1].micro_batch, -1);
  EXPECT_TRUE(decode_spans(encode_spans({}))->empty());
}

TEST(TraceReport, WhatNoRankSendsIsRefused) {
  const std::vector<SpanRecord> spans{span_of(SpanKind::kAgree, 4, 100, 200)};
  const std::vector<std::byte> good = encode_spans(spans);
  EXPECT_FALSE(decode_spans({}));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(decode_spans(std::span(good).first(size)).has_value(), size == 8) << size;  // the mark alone is a trace of nothing
  }
  const auto with_byte = [&](std::size_t at, unsigned char value) {
    std::vector<std::byte> bytes = good;
    bytes[at] = std::byte{value};
    return decode_spans(bytes);
  };
  EXPECT_FALSE(with_byte(0, 0));      // the mark
  EXPECT_FALSE(with_byte(15, 0x80));  // a negative begin
  EXPECT_FALSE(with_byte(16, 99));    // an end before the begin
  EXPECT_FALSE(with_byte(23, 0x7f));  // an end so late that a difference of two clocks would overflow
  EXPECT_FALSE(with_byte(31, 0xff));  // a negative step
  EXPECT_THAT(with_byte(32, 13).error().message, HasSubstr("kind 13"));
  EXPECT_THAT(with_byte(34, 5).error().message, HasSubstr("lane 5"));
  EXPECT_TRUE(with_byte(40, 100));    // off its core all the time
  EXPECT_FALSE(with_byte(40, 101));   // and longer than it lasted
  EXPECT_FALSE(with_byte(47, 0x80));  // a negative time off its core
}

TEST(TraceReport, ASourceAnswersWithTheNewestStepsAndRefusesAnOddNumber) {
  TraceRing ring(64);
  for (std::int64_t step = 0; step < 5; ++step) {
    ring.push(span_of(SpanKind::kAgree, step, step * 10, step * 10 + 1));
    ring.complete(step);
  }
  std::vector<std::byte> bytes;
  std::vector<std::byte> refused{std::byte{1}};
  std::atomic<int> answered{0};
  {
    TraceReportSource source(ring);
    source.make_report(0, [&](std::vector<std::byte> report) { refused = std::move(report); });
    source.make_report(2, [&](std::vector<std::byte> report) {
      bytes = std::move(report);
      ++answered;
    });
    while (answered == 0) {
      std::this_thread::yield();
    }
  }
  EXPECT_TRUE(refused.empty());
  const auto spans = decode_spans(bytes);
  ASSERT_TRUE(spans);
  ASSERT_EQ(spans->size(), 2U);
  EXPECT_EQ(spans->front().step, 3);
}

TEST(ClockDifference, AnAgreementThatWasProposedAheadBeganWithItsPlan) {
  // The clocks are the same. Both proposed at 10, the other found all there at 40 and did not wait, we computed until 90.
  const std::vector<SpanRecord> own{span_of(SpanKind::kDeliver, 6, 80, 89), span_of(SpanKind::kPlan, 7, 8, 10), span_of(SpanKind::kAgree, 7, 90, 91)};
  const std::vector<SpanRecord> other{span_of(SpanKind::kDeliver, 6, 30, 38), span_of(SpanKind::kPlan, 7, 8, 10), span_of(SpanKind::kAgree, 7, 39, 40)};
  const auto found = clock_difference(own, other, std::nullopt);
  ASSERT_TRUE(found);
  EXPECT_LE(found->ahead - found->error, nanoseconds(0));
  EXPECT_GE(found->ahead + found->error, nanoseconds(0));
  // One that was not has begun when the rank began to wait, however long after the plan.
  const std::vector<SpanRecord> later{span_of(SpanKind::kDeliver, 6, 1, 2), span_of(SpanKind::kPlan, 7, 8, 10), span_of(SpanKind::kAgree, 7, 39, 40)};
  EXPECT_EQ(clock_difference(later, later, std::nullopt)->error, nanoseconds(1));
}

TEST(ClockDifference, LiesWithinWhatTheAgreementsAllow) {
  // The other clock is 1000 ahead. In true time we agree from 10 to 50, they from 30 to 52: the difference is at least 1030 - 50 and at most 1052 - 10.
  const std::vector<SpanRecord> own{span_of(SpanKind::kAgree, 7, 10, 50)};
  const std::vector<SpanRecord> other{span_of(SpanKind::kAgree, 7, 1030, 1052)};
  const auto alone = clock_difference(own, other, std::nullopt);
  ASSERT_TRUE(alone);
  EXPECT_EQ(alone->ahead, nanoseconds(1011));
  EXPECT_EQ(alone->error, nanoseconds(31));
  const auto both = clock_difference(own, other, ClockEstimate{.ahead = nanoseconds(1003), .error = nanoseconds(4)});
  EXPECT_EQ(both->ahead, nanoseconds(1003));
  EXPECT_EQ(both->error, nanoseconds(4));
  const auto clamped = clock_difference(own, other, ClockEstimate{.ahead = nanoseconds(900), .error = nanoseconds(500)});
  EXPECT_EQ(clamped->ahead, nanoseconds(980));
  EXPECT_EQ(clamped->error, nanoseconds(62));
}

TEST(ClockDifference, WithoutACommonStepTheHeartbeatsTell) {
  const std::vector<SpanRecord> own{span_of(SpanKind::kAgree, 1, 10, 20)};
  const std::vector<SpanRecord> other{span_of(SpanKind::kAgree, 2, 10, 20), span_of(SpanKind::kPlan, 1, 10, 20)};
  EXPECT_FALSE(clock_difference(own, other, std::nullopt));
  EXPECT_EQ(clock_difference(own, other, ClockEstimate{.ahead = nanoseconds(5), .error = nanoseconds(1)})->ahead, nanoseconds(5));
}

TEST(ClockDifference, AgreementsThatContradictEachOtherGiveNone) {
  const std::vector<SpanRecord> own{span_of(SpanKind::kAgree, 1, 10, 20), span_of(SpanKind::kAgree, 2, 30, 40)};
  const std::vector<SpanRecord> other{span_of(SpanKind::kAgree, 1, 10, 20), span_of(SpanKind::kAgree, 2, 130, 140)};
  EXPECT_FALSE(clock_difference(own, other, ClockEstimate{}));
  // Whatever a peer says, nothing overflows.
  const std::vector<SpanRecord> far{span_of(SpanKind::kAgree, 1, std::numeric_limits<std::int64_t>::max() - 1, std::numeric_limits<std::int64_t>::max())};
  EXPECT_TRUE(clock_difference(own, far, ClockEstimate{}));
}

TEST(MergedTrace, OfOneRankAloneIsOnTheClockOfWhoIsAsked) {
  std::vector<PeerReport> reports(2);
  reports[0] = {.member = 1, .bytes = encode_spans(std::vector{span_of(SpanKind::kAgree, 7, 1'000'010, 1'000'050)})};
  reports[1] = {.member = 2, .status = Error{ErrorCode::kTimeout, "too late"}};
  const auto ranks_of = [](const boost::json::value& trace) {
    std::vector<std::pair<std::int64_t, double>> spans;
    for (const auto& event : trace.at("traceEvents").as_array()) {
      if (event.at("ph").as_string() == "X") {
        spans.emplace_back(event.at("pid").to_number<std::int64_t>(), event.at("ts").to_number<double>());
      }
    }
    return spans;
  };
  const std::vector<SpanRecord> own{span_of(SpanKind::kAgree, 7, 10, 50)};
  const boost::json::value second = boost::json::parse(merged_trace(0, own, reports, 1));
  EXPECT_THAT(ranks_of(second), ::testing::ElementsAre(std::pair<std::int64_t, double>{1, 0.01}));
  EXPECT_TRUE(second.at("metadata").at("missing").as_array().empty());
  EXPECT_EQ(second.at("metadata").at("clock_of_rank"), 0);
  ASSERT_EQ(second.at("metadata").at("ranks").as_array().size(), 1U);
  EXPECT_EQ(second.at("metadata").at("ranks").at(0).at("rank"), 1);
  const boost::json::value own_alone = boost::json::parse(merged_trace(0, own, reports, 0));
  EXPECT_THAT(ranks_of(own_alone), ::testing::ElementsAre(std::pair<std::int64_t, double>{0, 0.01}));
  const boost::json::value third = boost::json::parse(merged_trace(0, own, reports, 2));
  EXPECT_TRUE(third.at("traceEvents").as_array().empty());
  EXPECT_EQ(third.at("metadata").at("missing").at(0).at("rank"), 2);
}

TEST(MergedTrace, HasAllRanksOnOneClockAndNamesTheMissing) {
  std::vector<PeerReport> reports(3);
  reports[0] = {.member = 1, .bytes = encode_spans(std::vector{span_of(SpanKind::kAgree, 7, 1'000'010, 1'000'050)})};
  reports[1] = {.member = 2, .status = Error{ErrorCode::kTimeout, "its report did not \"come\""}};
  reports[2] = {.member = 3, .bytes = {std::byte{1}}};
  const std::string text = merged_trace(0, {span_of(SpanKind::kAgree, 7, 10, 50)}, reports);
  const boost::json::value trace = boost::json::parse(text);
  std::vector<std::pair<std::int64_t, double>> spans;
  for (const boost::json::value& event : trace.at("traceEvents").as_array()) {
    if (event.at("ph") == "X") {
      spans.emplace_back(event.at("pid").as_int64(), event.at("ts").to_number<double>());
    }
  }
  EXPECT_THAT(spans, ::testing::ElementsAre(std::pair(0, 0.01), std::pair(1, 0.01)));
  const boost::json::value& metadata = trace.at("metadata");
  EXPECT_EQ(metadata.at("clock_of_rank"), 0);
  EXPECT_EQ(metadata.at("ranks").as_array().size(), 2U);
  EXPECT_EQ(metadata.at("ranks").at(1).at("clock_ahead_us").to_number<double>(), 1000.0);
  ASSERT_EQ(metadata.at("missing").as_array().size(), 2U);
  EXPECT_EQ(metadata.at("missing").at(0).at("rank"), 2);
  EXPECT_EQ(metadata.at("missing").at(0).at("cause"), "its report did not \"come\"");
  EXPECT_EQ(metadata.at("missing").at(1).at("rank"), 3);
}

}  // namespace
}  // namespace lockstep::daemon
