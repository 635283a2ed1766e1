// Goal    A peer that dies, stops, or reports a failure is known to all others by name and cause; one that says goodbye is no failure.
// Method  As peer_channel_test. A killed process is a member whose sockets close without a word; a stopped one is a member whose io_context stands still.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/peer/peer_fixture.hpp"

namespace lockstep::comm {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

bool failed(Member& member) {
  return !member.channel().failure().has_value();
}

TEST(PeerLoss, EverySurvivorNamesTheRankWhenAPeerDies) {
  Group group(3);
  group.expect_connected();
  group[1].progress().advance(42, 7, StepPhase::kComputing);
  ASSERT_TRUE(eventually([&] { return group[0].channel().states().at(0).progress.step == 42 && group[2].channel().states().at(1).progress.step == 42; }));
  group[1].die();
  for (const int survivor : {0, 2}) {
    ASSERT_TRUE(eventually([&] { return failed(group[survivor]); }));
    const Error error = group[survivor].channel().failure().error();
    EXPECT_EQ(error.code, ErrorCode::kPeerLost);
    EXPECT_EQ(error.rank, 1);
    EXPECT_THAT(error.message, HasSubstr("rank 1: "));
    EXPECT_THAT(error.message, HasSubstr("step 42, layer 7"));
    EXPECT_FALSE(group[survivor].channel().states().at(survivor == 0 ? 0 : 1).connected);
  }
}

TEST(PeerLoss, AWaitWithTheChannelAsWatchEndsWhenAPeerDies) {
  Group group(2);
  group.expect_connected();
  const Deadline wait = Deadline::after(std::chrono::hours(1), &group[0].channel());
  ASSERT_TRUE(wait.check());
  group[1].die();
  EXPECT_TRUE(eventually([&] { return !wait.check(); }));
  EXPECT_EQ(wait.check().error().code, ErrorCode::kPeerLost);
}

TEST(PeerLoss, AStoppedPeerIsLostAfterTheStallTimeout) {
  PeerChannelOptions options = test_options();
  options.stall_timeout = milliseconds(300);
  Group group(3, options);
  group.expect_connected();
  group[2].freeze();
  for (const int survivor : {0, 1}) {
    ASSERT_TRUE(eventually([&] { return failed(group[survivor]); }));
    const Error error = group[survivor].channel().failure().error();
    EXPECT_EQ(error.code, ErrorCode::kPeerLost);
    EXPECT_EQ(error.rank, 2);
    EXPECT_THAT(error.message, HasSubstr("rank 2: no heartbeat for"));
  }
}

TEST(PeerLoss, AFailureReportReachesAllAndWinsOverTheClosingThatFollows) {
  Group group(3);
  group.expect_connected();
  group[2].channel().report_failure({ErrorCode::kInternal, "the disk is on fire", 2});
  ASSERT_TRUE(group[2].channel().flush(Deadline::after(kPatience)));
  group[2].die();
  for (const int survivor : {0, 1}) {
    ASSERT_TRUE(eventually([&] { return failed(group[survivor]); }));
    const Error error = group[survivor].channel().failure().error();
    EXPECT_EQ(error.code, ErrorCode::kPeerLost);
    EXPECT_EQ(error.rank, 2);
    EXPECT_EQ(error.message, "rank 2 reported: the disk is on fire");
  }
}

TEST(PeerLoss, AFailureReportedBeforeThePeersConnectReachesThem) {
  Group group(3);
  group[2].channel().report_failure({ErrorCode::kInternal, "no memory for the weights", 2});
  static_cast<void>(group.connect());
  for (const int other : {0, 1}) {
    ASSERT_TRUE(eventually([&] { return failed(group[other]); }));
    EXPECT_EQ(group[other].channel().failure().error().message, "rank 2 reported: no memory for the weights");
  }
}

TEST(PeerLoss, ADivergenceKeepsItsCodeAndTheRankAtFault) {
  Group group(2);
  group.expect_connected();
  group[1].channel().report_failure({ErrorCode::kDiverged, "rank 0 is at step 5, rank 1 at step 4", 0});
  ASSERT_TRUE(eventually([&] { return failed(group[0]); }));
  EXPECT_EQ(group[0].channel().failure().error().code, ErrorCode::kDiverged);
  EXPECT_EQ(group[0].channel().failure().error().rank, 0);
}

TEST(PeerLoss, APeerThatSaidGoodbyeMayCloseItsConnections) {
  Group group(3);
  group.expect_connected();
  group[1].channel().say_goodbye();
  ASSERT_TRUE(group[1].channel().flush(Deadline::after(kPatience)));
  group[1].die();
  for (const int survivor : {0, 2}) {
    ASSERT_TRUE(eventually([&] { return !group[survivor].channel().states().at(survivor == 0 ? 0 : 1).connected; }));
    EXPECT_TRUE(group[survivor].channel().failure());
  }
}

TEST(PeerLoss, PeersThatCloseAfterOurGoodbyeAreNoFailure) {
  Group group(2);
  group.expect_connected();
  group[0].channel().say_goodbye();
  ASSERT_TRUE(group[0].channel().flush(Deadline::after(kPatience)));
  group[1].die();
  ASSERT_TRUE(eventually([&] { return !group[0].channel().states().at(0).connected; }));
  EXPECT_TRUE(group[0].channel().failure());
}

TEST(PeerLoss, ConnectEndsWhenAConnectedPeerDiesMeanwhile) {
  Group group(3);
  std::vector<PeerEndpoint> endpoints = group.endpoints();
  Status first;
  std::thread thread([&] { first = group[0].channel().connect(endpoints, Deadline::after(kPatience)); });
  // Member 1 dies once 0 has reached it; 2 alone would still come.
  ASSERT_TRUE(eventually([&] { return group[0].channel().states().at(0).connected; }));
  group[1].die();
  // 0 may have had both by then: then the failure is known right after.
  thread.join();
  EXPECT_TRUE(eventually([&] { return failed(group[0]); }));
  EXPECT_EQ(group[0].channel().failure().error().rank, 1);
  EXPECT_TRUE(first || first.error().code == ErrorCode::kPeerLost);
}

TEST(PeerLoss, FlushNamesNoFailureWhenAPeerIsGone) {
  Group group(2);
  group.expect_connected();
  group[1].die();
  ASSERT_TRUE(eventually([&] { return failed(group[0]); }));
  group[0].channel().report_failure(group[0].channel().failure().error());
  EXPECT_TRUE(group[0].channel().flush(Deadline::after(kPatience)));
}

}  // namespace
}  // namespace lockstep::comm
