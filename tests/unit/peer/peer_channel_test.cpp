// Goal    Members find and wake each other, and what they cannot do is said clearly.
// Method  N channels in this process over loopback, each with an io_context and thread of its own.
#include "lockstep/comm/peer_channel.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/peer/peer_fixture.hpp"

namespace lockstep::comm {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

TEST(PeerChannel, AllMembersConnectWhenTheyShareASecret) {
  for (const int size : {2, 3, 5}) {
    Group group(size);
    group.expect_connected();
    for (int index = 0; index < size; ++index) {
      EXPECT_TRUE(group[index].channel().failure());
      const std::vector<PeerState> states = group[index].channel().states();
      EXPECT_EQ(states.size(), static_cast<std::size_t>(size - 1));
      for (const PeerState& state : states) {
        EXPECT_TRUE(state.connected);
        EXPECT_NE(state.member, index);
      }
    }
  }
}

TEST(PeerChannel, AGroupOfOneIsConnectedAtOnceAndNeedsNoSecret) {
  Member alone(view_of(1, 0), {});
  EXPECT_TRUE(alone.channel().connect({PeerEndpoint{}}, Deadline::after(Duration::zero())));
  alone.channel().broadcast_wake(0, 1);
  alone.channel().report_failure({ErrorCode::kInternal, "nobody hears it"});
  alone.channel().say_goodbye();
  EXPECT_TRUE(alone.channel().flush(Deadline::after(kPatience)));
  EXPECT_TRUE(alone.channel().states().empty());
}

TEST(PeerChannel, OptionsThatCannotWorkAreRefused) {
  boost::asio::io_context io;
  const StepProgress progress;
  PeerChannelOptions options = test_options();
  options.secret.clear();
  EXPECT_THAT(PeerChannel::create(io, view_of(2, 0), progress, options).error().message, HasSubstr("LOCKSTEP_GROUP_SECRET"));
  options = test_options();
  options.stall_timeout = options.heartbeat_interval;
  EXPECT_EQ(PeerChannel::create(io, view_of(2, 0), progress, options).error().code, ErrorCode::kInvalidArgument);
  options = test_options();
  options.bind_address = "localhost";
  EXPECT_THAT(PeerChannel::create(io, view_of(2, 0), progress, options).error().message, HasSubstr("\"localhost\""));
  options.bind_address = "192.0.2.1";  // reserved for documentation: no interface has it
  EXPECT_THAT(PeerChannel::create(io, view_of(2, 0), progress, options).error().message, HasSubstr("192.0.2.1"));
  options.bind_address = "203.0.113.0/24";
  EXPECT_THAT(PeerChannel::create(io, view_of(2, 0), progress, options).error().message, HasSubstr("no interface of this host"));
  for (const char* wrong : {"127.0.0.0/", "127.0.0.0/0", "127.0.0.0/33", "127.0.0.0/8x", "127.0.0/8", "/8"}) {
    options.bind_address = wrong;
    EXPECT_THAT(PeerChannel::create(io, view_of(2, 0), progress, options).error().message, HasSubstr("expected an IPv4 address")) << wrong;
  }
}

TEST(PeerChannel, AnEndpointCanBeReachedWhateverAddressItIsBoundTo) {
  for (const std::string& address : {std::string("127.0.0.1"), std::string("0.0.0.0"), std::string("127.0.0.3"), std::string("127.0.0.0/8")}) {
    PeerChannelOptions options = test_options();
    options.bind_address = address;
    Group group(2, options);
    group.expect_connected();
  }
}

TEST(PeerChannel, APortThatIsAskedForIsTakenOrItsOwnerIsToldOf) {
  boost::asio::io_context io;
  const StepProgress progress;
  PeerChannelOptions options = test_options();
  options.bind_address = "127.0.0.1";
  const auto first = PeerChannel::create(io, view_of(2, 0), progress, options);
  ASSERT_TRUE(first);
  options.port = (*first)->endpoint().port;
  const std::string message = PeerChannel::create(io, view_of(2, 1), progress, options).error().message;
  EXPECT_THAT(message, HasSubstr(fmt::format("127.0.0.1 port {}: cannot listen there", options.port)));
}

TEST(PeerChannel, AWakeReachesEveryOtherMemberAndNotItsSender) {
  Group group(3);
  std::array<RecordingReceiver, 3> receivers;
  for (int index = 0; index < 3; ++index) {
    group[index].channel().set_wake_receiver(&receivers[static_cast<std::size_t>(index)]);
  }
  group.expect_connected();
  group[1].channel().broadcast_wake(2, 77);
  EXPECT_TRUE(eventually([&] { return receivers[0].newest_from(1) == 77 && receivers[2].newest_from(1) == 77; }));
  EXPECT_TRUE(receivers[1].wakes().empty());
  EXPECT_EQ(receivers[0].wakes().at(0).epoch, 2);
  for (int index = 0; index < 3; ++index) {
    group[index].channel().set_wake_receiver(nullptr);
  }
}

TEST(PeerChannel, OfManyWakesTheNewestArrivesLastAndNoneOutOfOrder) {
  Group group(2);
  RecordingReceiver receiver;
  group[1].channel().set_wake_receiver(&receiver);
  group.expect_connected();
  constexpr std::int64_t kLast = 20000;
  for (std::int64_t step = 1; step <= kLast; ++step) {
    group[0].channel().broadcast_wake(0, step);
  }
  EXPECT_TRUE(eventually([&] { return receiver.newest_from(0) == kLast; }));
  std::int64_t before = 0;
  for (const auto& wake : receiver.wakes()) {
    EXPECT_LT(before, wake.step);
    before = wake.step;
  }
  group[1].channel().set_wake_receiver(nullptr);
}

TEST(PeerChannel, AWakeThatComesBeforeTheReceiverIsKeptForIt) {
  Group group(3);
  group.expect_connected();
  group[0].channel().broadcast_wake(0, 1);
  group[0].channel().broadcast_wake(0, 2);
  group[2].channel().broadcast_wake(0, 3);
  // A heartbeat that was sent after the wake has come: so has the wake.
  for (const int sender : {0, 2}) {
    ASSERT_TRUE(group[sender].channel().flush(Deadline::after(kPatience)));
    group[sender].progress().advance(5, 0, StepPhase::kComputing);
  }
  ASSERT_TRUE(eventually([&] {
    const auto states = group[1].channel().states();
    return states[0].progress.step == 5 && states[1].progress.step == 5;
  }));
  RecordingReceiver receiver;
  group[1].channel().set_wake_receiver(&receiver);
  EXPECT_TRUE(eventually([&] { return receiver.newest_from(0) == 2 && receiver.newest_from(2) == 3; }));
  group[0].channel().broadcast_wake(0, 4);
  EXPECT_TRUE(eventually([&] { return receiver.newest_from(0) == 4; }));
  group[1].channel().set_wake_receiver(nullptr);
}

TEST(PeerChannel, HeartbeatsCarryTheStepThreadsProgress) {
  Group group(2);
  group.expect_connected();
  group[0].progress().advance(123, 4, StepPhase::kDispatching);
  EXPECT_TRUE(eventually([&] {
    const ProgressReport seen = group[1].channel().states().at(0).progress;
    return seen.step == 123 && seen.layer == 4 && seen.phase == StepPhase::kDispatching && seen.ticks == 1;
  }));
}

TEST(PeerChannel, LastProgressMovesOnlyWhenTicksChange) {
  Group group(2);
  group.expect_connected();
  group[0].progress().advance(1, 0, StepPhase::kComputing);
  ASSERT_TRUE(eventually([&] { return group[1].channel().states().at(0).progress.ticks == 1; }));
  const TimePoint before = group[1].channel().last_progress();
  // Two heartbeats come and change nothing: an age that falls tells that one has come.
  for (int heartbeat = 0; heartbeat < 2; ++heartbeat) {
    double age = group[1].channel().states().at(0).heartbeat_age_seconds;
    ASSERT_TRUE(eventually(
        [&] { return group[1].channel().states().at(0).heartbeat_age_seconds < std::exchange(age, group[1].channel().states().at(0).heartbeat_age_seconds); }));
  }
  EXPECT_EQ(group[1].channel().last_progress(), before);
  group[0].progress().advance(1, 1, StepPhase::kComputing);
  EXPECT_TRUE(eventually([&] { return group[1].channel().last_progress() > before; }));
}

TEST(PeerChannel, ConnectNamesTheMembersThatAreMissing) {
  Group group(4);
  group[1].die();
  group[3].die();
  std::vector<PeerEndpoint> endpoints(4, PeerEndpoint{.address = 0x7f000001U, .port = 1});
  endpoints[0] = group[0].channel().endpoint();
  endpoints[2] = group[2].channel().endpoint();
  Status other;
  std::thread thread([&] { other = group[0].channel().connect(endpoints, Deadline::after(milliseconds(500))); });
  const Status status = group[2].channel().connect(endpoints, Deadline::after(milliseconds(500)));
  thread.join();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(status.error().message, HasSubstr("rank 1 at 127.0.0.1:1 (it has not connected)"));
  EXPECT_THAT(status.error().message, HasSubstr("rank 3 at 127.0.0.1:1 (the connection broke"));
  EXPECT_THAT(status.error().message, Not(HasSubstr("rank 2 at")));
  EXPECT_FALSE(other);
}

TEST(PeerChannel, ConnectRefusesAListOfAnotherLength) {
  Member member(view_of(3, 0));
  EXPECT_EQ(member.channel().connect({PeerEndpoint{}}, Deadline::after(kPatience)).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace lockstep::comm
