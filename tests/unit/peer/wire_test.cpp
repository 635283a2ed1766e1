// Goal    What peers send survives the way, and nothing that someone else made is taken for it.
// Method  Encode, damage in every possible single byte, decode; play both sides of a handshake by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/peer/wire/authentication.hpp"
#include "comm/peer/wire/frame.hpp"

namespace lockstep::comm::peer {
namespace {

using testing::HasSubstr;

std::vector<std::byte> encoded(const Frame& frame) {
  std::vector<std::byte> bytes(kFrameBytesMax);
  bytes.resize(encode_frame(frame, bytes));
  return bytes;
}

Identity member(int index, std::string secret = "secret", int epoch = 0) {
  return {.secret = std::move(secret), .epoch = epoch, .member_count = 4, .member = index};
}

Mac key_of(unsigned char value) {
  Mac key{};
  key.fill(std::byte{value});
  return key;
}

TEST(Frame, HeartbeatComesBackAsItWas) {
  const HeartbeatFrame sent{.progress = {.ticks = 0xfedcba9876543210U, .step = -5, .layer = -1, .phase = StepPhase::kCombining},
                            .sender_clock_ns = 1234567890123,
                            .echo_clock_ns = -3,
                            .echo_held_ns = 1LL << 50};
  const auto frame = decode_frame(encoded(sent));
  ASSERT_TRUE(frame);
  const auto& got = std::get<HeartbeatFrame>(*frame);
  EXPECT_EQ(got.progress.ticks, sent.progress.ticks);
  EXPECT_EQ(got.progress.step, sent.progress.step);
  EXPECT_EQ(got.progress.layer, sent.progress.layer);
  EXPECT_EQ(got.progress.phase, sent.progress.phase);
  EXPECT_EQ(got.sender_clock_ns, sent.sender_clock_ns);
  EXPECT_EQ(got.echo_clock_ns, sent.echo_clock_ns);
  EXPECT_EQ(got.echo_held_ns, sent.echo_held_ns);
}

TEST(Frame, ReportsComeBackAsTheyWere) {
  const auto request = decode_frame(encoded(ReportRequestFrame{.number = 9, .argument = -4}));
  ASSERT_TRUE(request);
  EXPECT_EQ(std::get<ReportRequestFrame>(*request).number, 9U);
  EXPECT_EQ(std::get<ReportRequestFrame>(*request).argument, -4);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, kReportPartBytesMax}) {
    const auto part = decode_frame(encoded(ReportPartFrame{.number = 9, .last = size == 1, .content = std::vector(size, std::byte{5})}));
    ASSERT_TRUE(part);
    EXPECT_EQ(std::get<ReportPartFrame>(*part).number, 9U);
    EXPECT_EQ(std::get<ReportPartFrame>(*part).last, size == 1);
    EXPECT_EQ(std::get<ReportPartFrame>(*part).content, std::vector(size, std::byte{5}));
  }
}

TEST(Frame, AReportsPartThatNoMemberSendsIsRefused) {
  const std::vector<std::byte> good = encoded(ReportPartFrame{.number = 9, .content = {std::byte{5}}});
  for (const std::size_t at : {kFrameHeaderBytes + 4, kFrameHeaderBytes + 5, kFrameHeaderBytes + 7}) {  // last, the zero, the length's upper byte
    std::vector<std::byte> bytes = good;
    bytes[at] = std::byte{0x7f};
    const auto frame = decode_frame(bytes);
    ASSERT_FALSE(frame) << at;
    EXPECT_THAT(frame.error().message, HasSubstr("part of a report"));
  }
}

TEST(Frame, WakeComesBackAsItWas) {
  const auto frame = decode_frame(encoded(WakeFrame{.epoch = 3, .step = 1LL << 40}));
  ASSERT_TRUE(frame);
  EXPECT_EQ(std::get<WakeFrame>(*frame).epoch, 3);
  EXPECT_EQ(std::get<WakeFrame>(*frame).step, 1LL << 40);
}

TEST(Frame, FailureComesBackAsItWasWithAndWithoutARank) {
  const auto with_rank = decode_frame(encoded(FailureFrame{.code = ErrorCode::kDiverged, .rank = 7, .message = "step 4 and 5"}));
  ASSERT_TRUE(with_rank);
  EXPECT_EQ(std::get<FailureFrame>(*with_rank).code, ErrorCode::kDiverged);
  EXPECT_EQ(std::get<FailureFrame>(*with_rank).rank, 7);
  EXPECT_EQ(std::get<FailureFrame>(*with_rank).message, "step 4 and 5");
  const auto without = decode_frame(encoded(FailureFrame{.code = ErrorCode::kInternal, .message = ""}));
  ASSERT_TRUE(without);
  EXPECT_FALSE(std::get<FailureFrame>(*without).rank.has_value());
}

TEST(Frame, LongFailureMessageIsCutAndControlCharactersBecomeSpaces) {
  const auto frame = decode_frame(encoded(FailureFrame{.message = "a\nb\x1b[31m" + std::string(5000, 'x')}));
  ASSERT_TRUE(frame);
  const std::string& message = std::get<FailureFrame>(*frame).message;
  EXPECT_EQ(message.size(), kFailureMessageBytesMax);
  EXPECT_EQ(message.substr(0, 9), "a b [31mx");
}

TEST(Frame, HeaderOfUnknownKindHasNoSize) {
  std::array<std::byte, kFrameHeaderBytes> header{};
  int known = 0;
  for (int kind = 0; kind < 256; ++kind) {
    header[0] = static_cast<std::byte>(kind);
    known += frame_bytes(header).has_value() ? 1 : 0;
  }
  EXPECT_EQ(known, 6);
  header = {std::byte{1}, std::byte{0}, std::byte{1}, std::byte{0}};
  EXPECT_FALSE(frame_bytes(header).has_value());
}

TEST(Frame, ValuesThatNoMemberSendsAreRefused) {
  auto heartbeat = encoded(HeartbeatFrame{});
  heartbeat[kFrameHeaderBytes + 44] = std::byte{99};
  EXPECT_EQ(decode_frame(heartbeat).error().code, ErrorCode::kInvalidArgument);
  auto code = encoded(FailureFrame{});
  code[kFrameHeaderBytes] = std::byte{99};
  EXPECT_FALSE(decode_frame(code));
  auto length = encoded(FailureFrame{});
  length[kFrameHeaderBytes + 2] = std::byte{0xff};
  length[kFrameHeaderBytes + 3] = std::byte{0xff};
  EXPECT_THAT(decode_frame(length).error().message, HasSubstr("65535"));
}

TEST(FrameSeal, OpensWhatWasSealedInOrder) {
  FrameSealer sealer(key_of(1));
  FrameOpener opener(key_of(1));
  for (int step = 0; step < 3; ++step) {
    auto bytes = encoded(WakeFrame{.step = step});
    sealer.seal(bytes);
    EXPECT_TRUE(opener.open(bytes));
  }
}

TEST(FrameSeal, RefusesAFrameThatIsRepeatedOrSkipped) {
  FrameSealer sealer(key_of(1));
  FrameOpener repeated(key_of(1));
  auto first = encoded(GoodbyeFrame{});
  auto second = encoded(GoodbyeFrame{});
  sealer.seal(first);
  sealer.seal(second);
  EXPECT_TRUE(repeated.open(first));
  EXPECT_FALSE(repeated.open(first));
  FrameOpener skipping(key_of(1));
  EXPECT_FALSE(skipping.open(second));
}

TEST(FrameSeal, RefusesAFrameWithAnyByteChangedAndOneOfAnotherKey) {
  FrameSealer sealer(key_of(1));
  auto bytes = encoded(WakeFrame{.epoch = 1, .step = 2});
  sealer.seal(bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto damaged = bytes;
    damaged[i] ^= std::byte{1};
    FrameOpener opener(key_of(1));
    EXPECT_FALSE(opener.open(damaged)) << "byte " << i;
  }
  FrameOpener other(key_of(2));
  EXPECT_FALSE(other.open(bytes));
}

TEST(Authentication, MembersWithOneSecretAgreeOnKeys) {
  auto connector = ConnectorHandshake::create(member(1), 3);
  ASSERT_TRUE(connector);
  AcceptorHandshake acceptor(member(3));
  const auto challenge = acceptor.on_hello(connector->hello());
  ASSERT_TRUE(challenge) << challenge.error().message;
  const auto proof = connector->on_challenge(*challenge);
  ASSERT_TRUE(proof) << proof.error().message;
  const auto confirmation = acceptor.on_proof(*proof);
  ASSERT_TRUE(confirmation) << confirmation.error().message;
  EXPECT_TRUE(connector->on_confirmation(*confirmation));
  EXPECT_EQ(acceptor.peer_member(), 1);
  EXPECT_EQ(connector->keys().send, acceptor.keys().receive);
  EXPECT_EQ(connector->keys().receive, acceptor.keys().send);
  EXPECT_NE(connector->keys().send, connector->keys().receive);
}

TEST(Authentication, EachSideRefusesTheOtherWhenSecretsDiffer) {
  auto connector = ConnectorHandshake::create(member(1, "one"), 3);
  ASSERT_TRUE(connector);
  AcceptorHandshake acceptor(member(3, "another"));
  const auto challenge = acceptor.on_hello(connector->hello());
  ASSERT_TRUE(challenge);
  const auto proof = connector->on_challenge(*challenge);
  ASSERT_FALSE(proof);
  EXPECT_EQ(proof.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(proof.error().message, HasSubstr("LOCKSTEP_GROUP_SECRET"));
  const auto refused = acceptor.on_proof(Mac{});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
}

TEST(Authentication, ARecordedProofIsWorthNothingInANewHandshake) {
  auto connector = ConnectorHandshake::create(member(1), 3);
  ASSERT_TRUE(connector);
  AcceptorHandshake first(member(3));
  const auto challenge = first.on_hello(connector->hello());
  const auto proof = connector->on_challenge(*challenge);
  ASSERT_TRUE(first.on_proof(*proof));
  AcceptorHandshake second(member(3));
  ASSERT_TRUE(second.on_hello(connector->hello()));
  EXPECT_FALSE(second.on_proof(*proof));
}

TEST(Authentication, AnotherEpochOrVersionIsNamedAndGarbageIsNoMember) {
  auto connector = ConnectorHandshake::create(member(1, "secret", 5), 3);
  ASSERT_TRUE(connector);
  AcceptorHandshake acceptor(member(3));
  const auto epoch = acceptor.on_hello(connector->hello());
  ASSERT_FALSE(epoch);
  EXPECT_EQ(epoch.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(epoch.error().message, HasSubstr("epoch 5"));

  HelloBytes versioned = ConnectorHandshake::create(member(1), 3)->hello();
  versioned[4] = std::byte{9};
  EXPECT_THAT(acceptor.on_hello(versioned).error().message, HasSubstr("version 9"));

  HelloBytes garbage{};
  garbage.fill(std::byte{0x47});
  EXPECT_EQ(AcceptorHandshake(member(3)).on_hello(garbage).error().code, ErrorCode::kUnsupported);
}

TEST(Authentication, AMemberThatIsNotInTheGroupOrIsOurselvesIsRefused) {
  for (const int from : {3, -1, 4, 1000}) {
    HelloBytes hello = ConnectorHandshake::create({.secret = "secret", .member_count = 4, .member = from}, 3)->hello();
    EXPECT_EQ(AcceptorHandshake(member(3)).on_hello(hello).error().code, ErrorCode::kUnsupported) << from;
  }
  EXPECT_FALSE(AcceptorHandshake(member(2)).on_hello(ConnectorHandshake::create(member(1), 3)->hello())) << "meant for member 3";
}

}  // namespace
}  // namespace lockstep::comm::peer
