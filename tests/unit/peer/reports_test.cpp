// Goal    A member's question reaches all others, their answers come whole or are named as missing, and clocks are told apart.
// Method  Channels in this process over loopback; a peer by hand that answers oddly; the pure parts with made-up times.
#include <future>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/peer/mesh/clock_difference.hpp"
#include "comm/peer/mesh/report_collection.hpp"
#include "tests/unit/peer/peer_fixture.hpp"

namespace lockstep::comm {
namespace {

using peer::ClockDifference;
using peer::HeartbeatFrame;
using peer::ReportCollection;
using peer::ReportPartFrame;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using testing::HasSubstr;

/// Answers `argument` bytes, of which each tells its place.
class CountingSource final : public ReportSource {
 public:
  void make_report(std::int64_t argument, std::function<void(std::vector<std::byte> bytes)> done) override {
    std::vector<std::byte> bytes(static_cast<std::size_t>(argument));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
    }
    done(std::move(bytes));
  }
};

/// Never answers.
class SilentSource final : public ReportSource {
 public:
  void make_report(std::int64_t /*argument*/, std::function<void(std::vector<std::byte> bytes)> /*done*/) override {}
};

std::future<std::vector<PeerReport>> ask(Member& member, std::int64_t argument, Duration limit = kPatience, std::optional<std::int32_t> only = std::nullopt) {
  auto promise = std::make_shared<std::promise<std::vector<PeerReport>>>();
  auto future = promise->get_future();
  member.channel().ask_reports(
      argument, limit, [promise](std::vector<PeerReport> reports) { promise->set_value(std::move(reports)); }, only);
  return future;
}

TEST(Reports, OfAllPeersComeWholeWhateverTheirSize) {
  CountingSource source;
  Group group(3);
  group.expect_connected();
  for (int index = 0; index < 3; ++index) {
    group[index].channel().set_report_source(&source);
  }
  for (const std::size_t size : {std::size_t{1}, peer::kReportPartBytesMax, peer::kReportPartBytesMax + 1, kReportBytesMax}) {
    const std::vector<PeerReport> reports = ask(group[1], static_cast<std::int64_t>(size)).get();
    ASSERT_EQ(reports.size(), 2U);
    EXPECT_EQ(reports[0].member, 0);
    EXPECT_EQ(reports[1].member, 2);
    std::vector<std::byte> expected;
    source.make_report(static_cast<std::int64_t>(size), [&](std::vector<std::byte> bytes) { expected = std::move(bytes); });
    for (const PeerReport& report : reports) {
      ASSERT_TRUE(report.status) << report.status.error().message;
      EXPECT_TRUE(report.bytes == expected) << size;
    }
  }
}

TEST(Reports, WithoutASourceOrTooLongAreNamed) {
  CountingSource source;
  Group group(3);
  group.expect_connected();
  group[1].channel().set_report_source(&source);
  const std::vector<PeerReport> reports = ask(group[0], static_cast<std::int64_t>(kReportBytesMax) + 1).get();
  EXPECT_EQ(reports[0].status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(reports[0].bytes.empty());
  EXPECT_EQ(reports[1].status.error().code, ErrorCode::kUnsupported);
}

TEST(Reports, OfAPeerThatDoesNotAnswerAreGivenUpAtTheLimitAndTheOthersCome) {
  CountingSource source;
  SilentSource silent;
  Group group(3);
  group.expect_connected();
  group[1].channel().set_report_source(&source);
  group[2].channel().set_report_source(&silent);
  const std::vector<PeerReport> reports = ask(group[0], 5, milliseconds(500)).get();
  EXPECT_TRUE(reports[0].status);
  EXPECT_EQ(reports[1].status.error().code, ErrorCode::kTimeout);
  // The next question is a new one.
  group[2].channel().set_report_source(&source);
  EXPECT_TRUE(ask(group[0], 5).get()[1].status);
}

TEST(Reports, OfALostPeerAreGivenUpAtOnceAndASecondQuestionIsRefusedMeanwhile) {
  SilentSource silent;
  Group group(2);
  group.expect_connected();
  group[1].channel().set_report_source(&silent);
  auto first = ask(group[0], 5);
  EXPECT_EQ(ask(group[0], 5).get()[0].status.error().code, ErrorCode::kResourceExhausted);
  group[1].die();
  EXPECT_EQ(first.get()[0].status.error().code, ErrorCode::kPeerLost);
  EXPECT_THAT(ask(group[0], 5).get()[0].status.error().message, HasSubstr("not connected"));
}

TEST(Reports, OfOnePeerAloneDoNotWaitForTheOthers) {
  CountingSource source;
  SilentSource silent;
  Group group(3);
  group.expect_connected();
  group[1].channel().set_report_source(&silent);
  group[2].channel().set_report_source(&source);
  // Without a limit that could run out: an answer that waited for the silent one would never come.
  const std::vector<PeerReport> reports = ask(group[0], 5, std::chrono::hours(1), 2).get();
  ASSERT_EQ(reports.size(), 1U);
  EXPECT_EQ(reports[0].member, 2);
  EXPECT_TRUE(reports[0].status);
  group[2].die();
  ASSERT_TRUE(eventually([&] { return !ask(group[0], 5, std::chrono::hours(1), 2).get()[0].status; }));
}

TEST(Reports, ComeWithTheClocksDifference) {
  CountingSource source;
  Group group(2);
  group.expect_connected();
  group[1].channel().set_report_source(&source);
  std::optional<ClockEstimate> clock;
  ASSERT_TRUE(eventually([&] {
    clock = ask(group[0], 5).get()[0].clock;
    return clock.has_value();
  }));
  // Both members have this process's clock.
  EXPECT_LE(std::chrono::abs(clock->ahead), clock->error);
}

TEST(ReportCollection, LeavesOutPartsOfAnotherQuestionAndAfterTheEnd) {
  ReportCollection collection(4, view_of(3, 0));
  collection.on_part(1, ReportPartFrame{.number = 3, .last = true, .content = {std::byte{9}}});
  collection.on_part(1, ReportPartFrame{.number = 4, .last = false, .content = {std::byte{1}}});
  collection.on_part(1, ReportPartFrame{.number = 4, .last = true, .content = {std::byte{2}}});
  collection.on_part(1, ReportPartFrame{.number = 4, .last = true, .content = {std::byte{3}}});
  collection.give_up(1, {ErrorCode::kTimeout, "too late"});
  EXPECT_FALSE(collection.complete());
  collection.give_up_all({ErrorCode::kTimeout, "no word"});
  ASSERT_TRUE(collection.complete());
  const std::vector<PeerReport> reports = collection.take();
  EXPECT_TRUE(reports[0].status);
  EXPECT_EQ(reports[0].bytes, (std::vector{std::byte{1}, std::byte{2}}));
  EXPECT_EQ(reports[1].status.error().message, "no word");
}

TimePoint at(std::int64_t ns) {
  return TimePoint(nanoseconds(ns));
}

TEST(ClockDifferenceOfHeartbeats, TheQuickestRoundTripCounts) {
  ClockDifference clock;
  EXPECT_FALSE(clock.estimate());
  clock.on_heartbeat({.sender_clock_ns = 5000}, at(100));  // answers nothing of ours
  EXPECT_FALSE(clock.estimate());
  // The peer is 5000 ahead. Ours left at 1000, took 300, lay there 40, and took 100 back.
  clock.on_heartbeat({.sender_clock_ns = 6340, .echo_clock_ns = 1000, .echo_held_ns = 40}, at(1440));
  EXPECT_EQ(clock.estimate()->ahead, nanoseconds(5100));
  EXPECT_EQ(clock.estimate()->error, nanoseconds(200));
  clock.on_heartbeat({.sender_clock_ns = 7020, .echo_clock_ns = 2000, .echo_held_ns = 10}, at(2030));
  EXPECT_EQ(clock.estimate()->ahead, nanoseconds(5000));
  EXPECT_EQ(clock.estimate()->error, nanoseconds(10));
  for (std::size_t i = 0; i < ClockDifference::kSamples; ++i) {  // older ones go: the clocks may have drifted
    clock.on_heartbeat({.sender_clock_ns = 8050, .echo_clock_ns = 3000, .echo_held_ns = 0}, at(3100));
  }
  EXPECT_EQ(clock.estimate()->error, nanoseconds(50));
}

TEST(ClockDifferenceOfHeartbeats, WhatCannotBeTrueIsLeftOut) {
  ClockDifference clock;
  clock.on_heartbeat({.sender_clock_ns = 1, .echo_clock_ns = 2000, .echo_held_ns = 0}, at(1000));   // from the future
  clock.on_heartbeat({.sender_clock_ns = 1, .echo_clock_ns = 500, .echo_held_ns = 501}, at(1000));  // held longer than it was away
  clock.on_heartbeat({.sender_clock_ns = 1, .echo_clock_ns = 500, .echo_held_ns = -1}, at(1000));
  clock.on_heartbeat({.sender_clock_ns = 1, .echo_clock_ns = std::numeric_limits<std::int64_t>::min(), .echo_held_ns = 0}, at(1000));
  clock.on_heartbeat({.sender_clock_ns = std::numeric_limits<std::int64_t>::min(), .echo_clock_ns = 500, .echo_held_ns = 0}, at(1000));
  EXPECT_FALSE(clock.estimate());
}

TEST(ClockDifferenceOfHeartbeats, AnEchoTellsHowLongTheLastHeartbeatLay) {
  ClockDifference clock;
  HeartbeatFrame first;
  clock.add_echo(first, at(50));
  EXPECT_EQ(first.echo_clock_ns, 0);
  EXPECT_EQ(first.echo_held_ns, 0);
  clock.on_heartbeat({.sender_clock_ns = 777}, at(100));
  HeartbeatFrame second;
  clock.add_echo(second, at(130));
  EXPECT_EQ(second.echo_clock_ns, 777);
  EXPECT_EQ(second.echo_held_ns, 30);
}

}  // namespace
}  // namespace lockstep::comm
