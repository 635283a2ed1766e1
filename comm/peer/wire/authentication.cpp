#include "comm/peer/wire/authentication.hpp"

#include <algorithm>
#include <initializer_list>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "comm/peer/wire/frame.hpp"
#include "comm/peer/wire/little_endian.hpp"

namespace lockstep::comm::peer {

namespace {

// Every use of the secret has a label of its own, so that no message of one step can stand in for one of another.
constexpr std::string_view kChallengeLabel = "lockstep peer 1: acceptor knows the secret";
constexpr std::string_view kProofLabel = "lockstep peer 1: connector knows the secret";
constexpr std::string_view kConfirmationLabel = "lockstep peer 1: connector is accepted";
constexpr std::string_view kToAcceptorLabel = "lockstep peer 1: key connector to acceptor";
constexpr std::string_view kToConnectorLabel = "lockstep peer 1: key acceptor to connector";

using Bytes = std::span<const std::byte>;

Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// HMAC-SHA256 over the parts, one after the other. Their sizes are fixed per label, so the borders need no marks.
Mac hmac(Bytes key, std::initializer_list<Bytes> parts) {
  std::vector<std::byte> message;
  for (const Bytes part : parts) {
    message.insert(message.end(), part.begin(), part.end());
  }
  Mac mac{};
  unsigned int length = 0;
  // OpenSSL takes unsigned char; std::byte may alias it.
  const unsigned char* result = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(message.data()),
                                     message.size(), reinterpret_cast<unsigned char*>(mac.data()), &length);
  // Without a MAC there is no safe way to go on, and with SHA-256 built in and a key present it fails only when memory is out.
  LOCKSTEP_CHECK(result != nullptr && length == kMacBytes, "HMAC-SHA256 of {} bytes failed", message.size());
  return mac;
}

bool equal(Bytes a, Bytes b) {
  // Constant time: how long a wrong tag takes must not tell how much of it was right.
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

struct Greeting {
  std::uint32_t magic = kProtocolMagic;
  std::uint32_t version = kProtocolVersion;
  std::int32_t epoch = 0;
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::int32_t member_count = 0;
};

Status write_greeting(const Greeting& greeting, std::span<std::byte> buffer) {
  std::array<unsigned char, kNonceBytes> nonce{};
  if (RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) != 1) {
    return Error{ErrorCode::kInternal, "OpenSSL has no random numbers (RAND_bytes failed): cannot authenticate peers"};
  }
  ByteWriter writer(buffer);
  writer.put(greeting.magic);
  writer.put(greeting.version);
  writer.put(greeting.epoch);
  writer.put(greeting.from);
  writer.put(greeting.to);
  writer.put(greeting.member_count);
  writer.put_bytes(std::as_bytes(std::span(nonce)));
  return {};
}

Greeting read_greeting(Bytes bytes) {
  ByteReader reader(bytes);
  Greeting greeting;
  greeting.magic = reader.get<std::uint32_t>();
  greeting.version = reader.get<std::uint32_t>();
  greeting.epoch = reader.get<std::int32_t>();
  greeting.from = reader.get<std::int32_t>();
  greeting.to = reader.get<std::int32_t>();
  greeting.member_count = reader.get<std::int32_t>();
  return greeting;
}

Status check_greeting(const Greeting& greeting, const Identity& self) {
  if (greeting.magic != kProtocolMagic) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("it does not speak lockstep's peer protocol (magic {:#010x}, expected {:#010x})", greeting.magic, kProtocolMagic)};
  }
  if (greeting.from < 0 || greeting.from >= self.member_count || greeting.from == self.member || greeting.to != self.member) {
    return Error{ErrorCode::kUnsupported, fmt::format("it says that it is member {} looking for member {}; this is member {} of {}", greeting.from, greeting.to,
                                                      self.member, self.member_count)};
  }
  if (greeting.version != kProtocolVersion) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("it speaks version {} of the peer protocol, this member version {}: install the same lockstep everywhere", greeting.version,
                             kProtocolVersion)};
  }
  if (greeting.epoch != self.epoch || greeting.member_count != self.member_count) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("it is in epoch {} of {} members, this member in epoch {} of {}", greeting.epoch,
                                                          greeting.member_count, self.epoch, self.member_count)};
  }
  return {};
}

Error other_secret() {
  return {ErrorCode::kInvalidArgument, "it has another group secret: LOCKSTEP_GROUP_SECRET must be the same on all members"};
}

Bytes greeting_part(const ChallengeBytes& challenge) {
  return Bytes(challenge).first(kHelloBytes);
}

Mac link_key(const Identity& self, std::string_view label, const HelloBytes& hello, const ChallengeBytes& challenge) {
  return hmac(bytes_of(self.secret), {bytes_of(label), hello, challenge});
}

}  // namespace

Result<ConnectorHandshake> ConnectorHandshake::create(Identity self, std::int32_t peer_member) {
  ConnectorHandshake handshake;
  handshake.self_ = std::move(self);
  handshake.peer_member_ = peer_member;
  const Greeting greeting{.epoch = handshake.self_.epoch, .from = handshake.self_.member, .to = peer_member, .member_count = handshake.self_.member_count};
  LOCKSTEP_RETURN_IF_ERROR(write_greeting(greeting, handshake.hello_));
  return handshake;
}

Result<Mac> ConnectorHandshake::on_challenge(const ChallengeBytes& challenge) {
  const Greeting greeting = read_greeting(challenge);
  LOCKSTEP_RETURN_IF_ERROR(check_greeting(greeting, self_));
  if (greeting.from != peer_member_) {
    return Error{ErrorCode::kUnsupported, fmt::format("member {} answered where member {} was expected", greeting.from, peer_member_)};
  }
  const Mac expected = hmac(bytes_of(self_.secret), {bytes_of(kChallengeLabel), hello_, greeting_part(challenge)});
  if (!equal(expected, Bytes(challenge).subspan(kHelloBytes))) {
    return other_secret();
  }
  challenge_ = challenge;
  return hmac(bytes_of(self_.secret), {bytes_of(kProofLabel), hello_, challenge_});
}

Status ConnectorHandshake::on_confirmation(const Mac& confirmation) const {
  if (!equal(hmac(bytes_of(self_.secret), {bytes_of(kConfirmationLabel), hello_, challenge_}), confirmation)) {
    return other_secret();
  }
  return {};
}

LinkKeys ConnectorHandshake::keys() const {
  return {.send = link_key(self_, kToAcceptorLabel, hello_, challenge_), .receive = link_key(self_, kToConnectorLabel, hello_, challenge_)};
}

Result<ChallengeBytes> AcceptorHandshake::on_hello(const HelloBytes& hello) {
  const Greeting theirs = read_greeting(hello);
  if (theirs.magic == kProtocolMagic && theirs.from >= 0 && theirs.from < self_.member_count) {
    peer_member_ = theirs.from;
  }
  LOCKSTEP_RETURN_IF_ERROR(check_greeting(theirs, self_));
  hello_ = hello;
  const Greeting ours{.epoch = self_.epoch, .from = self_.member, .to = peer_member_, .member_count = self_.member_count};
  LOCKSTEP_RETURN_IF_ERROR(write_greeting(ours, std::span(challenge_).first(kHelloBytes)));
  const Mac mac = hmac(bytes_of(self_.secret), {bytes_of(kChallengeLabel), hello_, greeting_part(challenge_)});
  std::ranges::copy(mac, challenge_.begin() + kHelloBytes);
  return challenge_;
}

Result<Mac> AcceptorHandshake::on_proof(const Mac& proof) const {
  if (!equal(hmac(bytes_of(self_.secret), {bytes_of(kProofLabel), hello_, challenge_}), proof)) {
    return other_secret();
  }
  return hmac(bytes_of(self_.secret), {bytes_of(kConfirmationLabel), hello_, challenge_});
}

LinkKeys AcceptorHandshake::keys() const {
  return {.send = link_key(self_, kToConnectorLabel, hello_, challenge_), .receive = link_key(self_, kToAcceptorLabel, hello_, challenge_)};
}

namespace {

Mac frame_mac(const Mac& key, std::uint64_t sequence, Bytes content) {
  std::array<std::byte, sizeof(sequence)> number{};
  ByteWriter(number).put(sequence);
  return hmac(key, {number, content});
}

}  // namespace

void FrameSealer::seal(std::span<std::byte> frame) {
  LOCKSTEP_CHECK(frame.size() >= kFrameHeaderBytes + kFrameTagBytes, "a frame of {} bytes", frame.size());
  const std::span<std::byte> tag = frame.last(kFrameTagBytes);
  const Mac mac = frame_mac(key_, sequence_++, frame.first(frame.size() - kFrameTagBytes));
  std::ranges::copy(std::span(mac).first(kFrameTagBytes), tag.begin());
}

bool FrameOpener::open(std::span<const std::byte> frame) {
  LOCKSTEP_CHECK(frame.size() >= kFrameHeaderBytes + kFrameTagBytes, "a frame of {} bytes", frame.size());
  const Mac mac = frame_mac(key_, sequence_, frame.first(frame.size() - kFrameTagBytes));
  if (!equal(Bytes(mac).first(kFrameTagBytes), frame.last(kFrameTagBytes))) {
    return false;
  }
  ++sequence_;
  return true;
}

}  // namespace lockstep::comm::peer
