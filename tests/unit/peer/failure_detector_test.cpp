// Goal    Who is lost, and why, is decided right from every order of events.
// Method  The detector has no clock: the test tells it the time.
#include "comm/peer/failure_detector.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/peer/peer_fixture.hpp"

namespace lockstep::comm::peer {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr Duration kInterval = milliseconds(100);
constexpr Duration kStall = seconds(2);

class FailureDetectorTest : public testing::Test {
 protected:
  FailureDetectorTest() : detector_(view(), kInterval, kStall, time_) {
    for (const int member : {0, 2}) {
      detector_.on_connected(member, time_);
    }
  }
  static GroupView view() { return {.epoch = 0, .members = {4, 5, 9}, .my_index = 1}; }
  // Rounds on time, in which the members of `alive` send heartbeats.
  void run(Duration duration, const std::vector<int>& alive) {
    for (const TimePoint end = time_ + duration; time_ < end;) {
      time_ += kInterval;
      for (const int member : alive) {
        detector_.on_heartbeat(member, {.ticks = 1, .step = 17, .layer = 3}, time_);
      }
      detector_.on_round(time_);
    }
  }

  TimePoint time_{seconds(1000)};
  FailureDetector detector_;
};

TEST_F(FailureDetectorTest, NobodyIsLostWhileHeartbeatsCome) {
  run(seconds(60), {0, 2});
  EXPECT_TRUE(detector_.failure());
}

TEST_F(FailureDetectorTest, ASilentPeerIsLostAfterTheStallTimeoutAndNamedByItsRank) {
  run(seconds(5), {0, 2});
  run(kStall - kInterval, {0});
  EXPECT_TRUE(detector_.failure());
  run(2 * kInterval, {0});
  const Status status = detector_.failure();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(status.error().rank, 9);
  EXPECT_THAT(status.error().message, HasSubstr("rank 9: no heartbeat for 2."));
  EXPECT_THAT(status.error().message, HasSubstr("step 17, layer 3"));
}

TEST_F(FailureDetectorTest, OurOwnStandstillIsNotTakenForThePeers) {
  run(seconds(1), {0, 2});
  time_ += seconds(60);  // we were stopped; the round's timer runs before the sockets are read
  detector_.on_round(time_);
  EXPECT_TRUE(detector_.failure());
  run(seconds(5), {0, 2});
  EXPECT_TRUE(detector_.failure());
}

TEST_F(FailureDetectorTest, RoundsThatAreAlwaysLateStillFindASilentPeer) {
  for (int round = 0; round < 12; ++round) {
    time_ += 10 * kInterval;
    detector_.on_heartbeat(0, {}, time_);
    detector_.on_round(time_);
  }
  EXPECT_FALSE(detector_.failure());
  EXPECT_EQ(detector_.failure().error().rank, 9);
}

TEST_F(FailureDetectorTest, NeitherSilenceNorClosingIsAFailureAfterAGoodbye) {
  detector_.on_goodbye(2);
  run(2 * kStall, {0});
  detector_.on_closed(2, "it closed");
  EXPECT_TRUE(detector_.failure());
}

TEST_F(FailureDetectorTest, NothingIsAFailureOfPeersOnceWeLeave) {
  detector_.leave();
  detector_.on_closed(2, "it closed");
  run(2 * kStall, {});
  EXPECT_TRUE(detector_.failure());
}

TEST_F(FailureDetectorTest, TheFirstCauseIsKept) {
  detector_.on_report(0, {.code = ErrorCode::kDiverged, .rank = 9, .message = "step 4 here, 5 there"});
  detector_.on_closed(0, "it closed");
  const Status status = detector_.failure();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
  EXPECT_EQ(status.error().rank, 9);
  EXPECT_EQ(status.error().message, "rank 4 reported: step 4 here, 5 there");
}

TEST_F(FailureDetectorTest, AnInternalErrorOfAPeerIsForUsThePeersLoss) {
  detector_.on_report(2, {.code = ErrorCode::kInternal, .message = "out of memory"});
  EXPECT_EQ(detector_.failure().error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(detector_.failure().error().rank, 9);
}

TEST_F(FailureDetectorTest, ProgressMovesOnlyWhenSomeonesTicksChange) {
  run(kInterval, {0, 2});
  const TimePoint progressed = time_;
  EXPECT_EQ(detector_.last_progress(), progressed);
  run(seconds(3), {0, 2});
  EXPECT_EQ(detector_.last_progress(), progressed);
  time_ += milliseconds(7);
  detector_.on_heartbeat(0, {.ticks = 2, .phase = StepPhase::kAgreeing}, time_);
  EXPECT_EQ(detector_.last_progress(), time_);
}

TEST_F(FailureDetectorTest, StatesTellAgesAndProgressOfTheOthers) {
  detector_.on_heartbeat(0, {.ticks = 3, .step = 8}, time_ + seconds(1));
  detector_.on_closed(2, "it closed");
  const std::vector<PeerState> states = detector_.states(time_ + seconds(4));
  ASSERT_EQ(states.size(), 2U);
  EXPECT_EQ(states[0].member, 0);
  EXPECT_TRUE(states[0].connected);
  EXPECT_DOUBLE_EQ(states[0].heartbeat_age_seconds, 3.0);
  EXPECT_EQ(states[0].progress.step, 8);
  EXPECT_EQ(states[1].member, 2);
  EXPECT_FALSE(states[1].connected);
  EXPECT_DOUBLE_EQ(states[1].heartbeat_age_seconds, 4.0);
}

}  // namespace
}  // namespace lockstep::comm::peer
