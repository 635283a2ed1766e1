// Goal    Who does not know the group's secret can neither join, nor speak, nor do harm; members with another secret are told so.
// Method  Peers made by hand speak to a real channel: garbage, silence, recordings, and forged frames.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/peer/peer_fixture.hpp"

namespace lockstep::comm {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

peer::Identity identity(int member, int count, std::string secret = test_options().secret) {
  return {.secret = std::move(secret), .epoch = 0, .member_count = count, .member = member};
}

// Connects a real member 1 of 2 with a hand-made member 0.
class HandMadeGroup : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(peer_.authenticate(identity(0, 2), 1)); }
  bool real_failed() { return !real_.channel().failure().has_value(); }

  Member real_{view_of(2, 1)};
  HandMadePeer peer_{real_.channel().endpoint()};
};

TEST(Intruder, BothSidesSayThatTheSecretDiffers) {
  PeerChannelOptions options = test_options();
  options.authentication_timeout = milliseconds(300);
  Member first(view_of(2, 0), options);
  options.secret = "another secret";
  Member second(view_of(2, 1), options);
  const std::vector<PeerEndpoint> endpoints{first.channel().endpoint(), second.channel().endpoint()};
  Status accepting;
  std::thread thread([&] { accepting = second.channel().connect(endpoints, Deadline::after(kPatience)); });
  const Status dialing = first.channel().connect(endpoints, Deadline::after(kPatience));
  thread.join();
  ASSERT_FALSE(dialing);
  EXPECT_EQ(dialing.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(dialing.error().rank, 1);
  EXPECT_THAT(dialing.error().message, HasSubstr("another group secret"));
  ASSERT_FALSE(accepting);
  EXPECT_EQ(accepting.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(accepting.error().rank, 0);
  EXPECT_THAT(accepting.error().message, HasSubstr("another group secret"));
}

TEST(Intruder, GarbageAndSilenceAreDroppedAndTheGroupStillConnects) {
  PeerChannelOptions options = test_options();
  options.authentication_timeout = milliseconds(500);
  Group group(2, options);
  std::vector<std::byte> garbage(1 << 20, std::byte{0x5a});
  HandMadePeer talker(group[1].channel().endpoint());
  HandMadePeer silent(group[1].channel().endpoint());
  HandMadePeer half(group[1].channel().endpoint());
  talker.write(garbage);
  half.write(std::span(garbage).first(10));
  EXPECT_TRUE(talker.closed_by_other_side());
  EXPECT_TRUE(silent.closed_by_other_side());
  EXPECT_TRUE(half.closed_by_other_side());
  group.expect_connected();
  EXPECT_TRUE(group[1].channel().failure());
}

TEST(Intruder, MoreStrangersThanAreLetInDoNotKeepMembersOut) {
  PeerChannelOptions options = test_options();
  options.authentication_timeout = milliseconds(500);
  Group group(2, options);
  std::vector<std::unique_ptr<HandMadePeer>> strangers;
  for (int i = 0; i < 40; ++i) {
    strangers.push_back(std::make_unique<HandMadePeer>(group[1].channel().endpoint()));
  }
  group.expect_connected();
}

TEST(Intruder, AStrangerInAMembersNameDoesNotKeepTheMemberOut) {
  Group group(2);
  HandMadePeer stranger(group[1].channel().endpoint());
  auto handshake = peer::ConnectorHandshake::create(identity(0, 2, "guess"), 1);
  ASSERT_TRUE(handshake);
  stranger.write(handshake->hello());
  peer::ChallengeBytes challenge{};
  ASSERT_TRUE(stranger.read(challenge));
  stranger.write(peer::Mac{});
  EXPECT_TRUE(stranger.closed_by_other_side());
  group.expect_connected();
}

TEST(Intruder, ARecordedHandshakeIsRefused) {
  Member real(view_of(3, 2));
  HandMadePeer recorded(real.channel().endpoint());
  auto handshake = peer::ConnectorHandshake::create(identity(0, 3), 2);
  ASSERT_TRUE(handshake);
  recorded.write(handshake->hello());
  peer::ChallengeBytes challenge{};
  ASSERT_TRUE(recorded.read(challenge));
  const auto proof = handshake->on_challenge(challenge);
  ASSERT_TRUE(proof);
  // The recording is played on a second connection, before its owner can use it.
  HandMadePeer replayer(real.channel().endpoint());
  replayer.write(handshake->hello());
  replayer.write(*proof);
  EXPECT_TRUE(replayer.closed_by_other_side());
  EXPECT_FALSE(real.channel().states().at(0).connected);
  recorded.write(*proof);
  EXPECT_TRUE(eventually([&] { return real.channel().states().at(0).connected; }));
}

TEST(Intruder, ASecondConnectionOfAConnectedMemberIsDropped) {
  Member real(view_of(3, 2));
  HandMadePeer first(real.channel().endpoint());
  ASSERT_TRUE(first.authenticate(identity(0, 3), 2));
  HandMadePeer second(real.channel().endpoint());
  static_cast<void>(second.authenticate(identity(0, 3), 2));
  EXPECT_TRUE(second.closed_by_other_side());
  EXPECT_TRUE(real.channel().states().at(0).connected);
  EXPECT_TRUE(real.channel().failure());
}

TEST_F(HandMadeGroup, FramesOfAnAuthenticatedPeerAreTaken) {
  RecordingReceiver receiver;
  real_.channel().set_wake_receiver(&receiver);
  peer_.write(peer_.sealed(peer::WakeFrame{.epoch = 0, .step = 6}));
  EXPECT_TRUE(eventually([&] { return receiver.newest_from(0) == 6; }));
  real_.channel().set_wake_receiver(nullptr);
}

TEST_F(HandMadeGroup, ARepeatedFrameIsNotTakenAndEndsTheConnection) {
  RecordingReceiver receiver;
  real_.channel().set_wake_receiver(&receiver);
  const std::vector<std::byte> wake = peer_.sealed(peer::WakeFrame{.epoch = 0, .step = 6});
  peer_.write(wake);
  peer_.write(wake);
  EXPECT_TRUE(peer_.closed_by_other_side());
  ASSERT_TRUE(eventually([&] { return real_failed(); }));
  EXPECT_THAT(real_.channel().failure().error().message, HasSubstr("repeated"));
  EXPECT_EQ(receiver.wakes().size(), 1U);
  real_.channel().set_wake_receiver(nullptr);
}

TEST_F(HandMadeGroup, AFrameOfUnknownKindEndsTheConnection) {
  std::vector<std::byte> bytes(4096, std::byte{0xff});
  peer_.write(bytes);
  EXPECT_TRUE(peer_.closed_by_other_side());
  ASSERT_TRUE(eventually([&] { return real_failed(); }));
  EXPECT_THAT(real_.channel().failure().error().message, HasSubstr("unknown kind"));
}

TEST_F(HandMadeGroup, AReportIsReadBeforeTheEndOfTheStreamThatFollowsIt) {
  std::vector<std::byte> bytes = peer_.sealed(peer::HeartbeatFrame{});
  const std::vector<std::byte> report = peer_.sealed(peer::FailureFrame{.code = ErrorCode::kDiverged, .message = "the true cause"});
  bytes.insert(bytes.end(), report.begin(), report.end());
  peer_.write(bytes);
  peer_.close();  // with unread heartbeats in its buffer: the kernel sends a reset
  ASSERT_TRUE(eventually([&] { return real_failed(); }));
  EXPECT_EQ(real_.channel().failure().error().message, "rank 0 reported: the true cause");
}

TEST_F(HandMadeGroup, APeerThatReadsLateGetsTheNewestWakeAndTheReport) {
  constexpr std::int64_t kLast = 5000;
  for (std::int64_t step = 1; step <= kLast; ++step) {
    real_.channel().broadcast_wake(0, step);
  }
  real_.channel().report_failure({ErrorCode::kInternal, "leaving"});
  std::int64_t newest = 0;
  bool reported = false;
  const Deadline deadline = Deadline::after(kPatience);
  while (!(reported && newest == kLast) && deadline.check()) {
    const auto frame = peer_.next_frame();
    ASSERT_TRUE(frame) << "after step " << newest;
    if (const auto* wake = std::get_if<peer::WakeFrame>(&*frame)) {
      EXPECT_LT(newest, wake->step);
      newest = wake->step;
    }
    reported = reported || std::holds_alternative<peer::FailureFrame>(*frame);
  }
  EXPECT_EQ(newest, kLast);
  EXPECT_TRUE(reported);
}

}  // namespace
}  // namespace lockstep::comm
