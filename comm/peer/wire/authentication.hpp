// Authentication: two members prove to each other that they know the group's secret, and get the keys that seal their frames.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "lockstep/core/result.hpp"

namespace lockstep::comm::peer {

inline constexpr std::uint32_t kProtocolMagic = 0x504b534cU;  // "LSKP"
inline constexpr std::uint32_t kProtocolVersion = 2;

inline constexpr std::size_t kMacBytes = 32;
inline constexpr std::size_t kNonceBytes = 32;
/// Magic, version, epoch, from, to, member count, nonce.
inline constexpr std::size_t kHelloBytes = 6 * 4 + kNonceBytes;
inline constexpr std::size_t kChallengeBytes = kHelloBytes + kMacBytes;

using Mac = std::array<std::byte, kMacBytes>;
using HelloBytes = std::array<std::byte, kHelloBytes>;
using ChallengeBytes = std::array<std::byte, kChallengeBytes>;

/// Who speaks: both sides must agree on epoch and member count.
struct Identity {
  std::string secret;
  std::int32_t epoch = 0;
  std::int32_t member_count = 0;
  std::int32_t member = 0;
};

/// What a finished handshake leaves: one key for each direction, made from the secret and both nonces.
struct LinkKeys {
  Mac send{};
  Mac receive{};
};

/// Errors of both sides: kInvalidArgument, a member that is set up differently (secret, version, epoch, member count): it will not get better by itself;
/// kUnsupported, something that is no lockstep member.

/// The connecting side: hello → challenge → proof → confirmation.      Threads  one at a time.
class ConnectorHandshake {
 public:
  /// Errors  kInternal: no random numbers.
  [[nodiscard]] static Result<ConnectorHandshake> create(Identity self, std::int32_t peer_member);
  [[nodiscard]] const HelloBytes& hello() const { return hello_; }
  /// Verifies the acceptor and returns our proof.
  [[nodiscard]] Result<Mac> on_challenge(const ChallengeBytes& challenge);
  [[nodiscard]] Status on_confirmation(const Mac& confirmation) const;
  [[nodiscard]] LinkKeys keys() const;

 private:
  ConnectorHandshake() = default;
  Identity self_{};
  std::int32_t peer_member_ = 0;
  HelloBytes hello_{};
  ChallengeBytes challenge_{};
};

/// The accepting side; who the peer is comes with its hello.      Threads  one at a time.
class AcceptorHandshake {
 public:
  explicit AcceptorHandshake(Identity self) : self_(std::move(self)) {}
  [[nodiscard]] Result<ChallengeBytes> on_hello(const HelloBytes& hello);
  /// Verifies the connector and returns the confirmation.
  [[nodiscard]] Result<Mac> on_proof(const Mac& proof) const;
  /// The member that the peer says it is; -1 before a well formed hello. Proven after on_proof.
  [[nodiscard]] std::int32_t peer_member() const { return peer_member_; }
  [[nodiscard]] LinkKeys keys() const;

 private:
  Identity self_;
  std::int32_t peer_member_ = -1;
  HelloBytes hello_{};
  ChallengeBytes challenge_{};
};

/// Puts the tags on the frames of one direction. The sequence number is part of each tag and never sent: a frame that is repeated, left out or moved does not
/// verify.
class FrameSealer {
 public:
  explicit FrameSealer(const Mac& key) : key_(key) {}
  /// Writes the tag into the last kFrameTagBytes of `frame`.
  void seal(std::span<std::byte> frame);

 private:
  Mac key_;
  std::uint64_t sequence_ = 0;
};

/// Verifies them.
class FrameOpener {
 public:
  explicit FrameOpener(const Mac& key) : key_(key) {}
  /// False: the frame was not the next one that the key's owner sealed; nothing after it can be trusted either.
  [[nodiscard]] bool open(std::span<const std::byte> frame);

 private:
  Mac key_;
  std::uint64_t sequence_ = 0;
};

}  // namespace lockstep::comm::peer
