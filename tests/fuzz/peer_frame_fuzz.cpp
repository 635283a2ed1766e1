// Goal: what a peer sends, before and after it has proven the secret, is read within its bytes and never used unchecked.
// Method: the first byte chooses. Frames: the rest as one, decoded, encoded and decoded again to the same bytes. Handshakes: the rest as messages to both
// sides. Seals: the rest as a frame that no key has sealed.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "comm/peer/wire/authentication.hpp"
#include "comm/peer/wire/frame.hpp"
#include "lockstep/core/check.hpp"

namespace {

using namespace lockstep;
using namespace lockstep::comm::peer;

void fuzz_frame(std::span<const std::byte> input) {
  if (input.size() < kFrameHeaderBytes) {
    return;
  }
  const auto size = frame_bytes(input.first<kFrameHeaderBytes>());
  if (!size) {
    return;
  }
  LOCKSTEP_CHECK(*size <= kFrameBytesMax, "a frame of {} bytes", *size);
  std::vector<std::byte> bytes(*size);  // exactly as long, so that a read past its end shows
  std::ranges::copy(input.first(std::min(input.size(), *size)), bytes.begin());
  const Result<Frame> frame = decode_frame(bytes);
  if (!frame) {
    return;
  }
  std::array<std::byte, kFrameBytesMax> again{};
  const std::size_t encoded = encode_frame(*frame, again);
  LOCKSTEP_CHECK(encoded == *size && decode_frame(std::span(again).first(encoded)).has_value(), "{} bytes became {}", *size, encoded);
}

template <typename Message>
Message take(std::span<const std::byte>& input) {
  Message message{};
  const std::size_t size = std::min(input.size(), message.size());
  std::ranges::copy(input.first(size), message.begin());
  input = input.subspan(size);
  return message;
}

void fuzz_acceptor(std::span<const std::byte> input) {
  AcceptorHandshake acceptor({.secret = "secret", .epoch = 0, .member_count = 4, .member = 2});
  if (acceptor.on_hello(take<HelloBytes>(input))) {
    LOCKSTEP_CHECK(acceptor.peer_member() >= 0 && acceptor.peer_member() < 4, "member {}", acceptor.peer_member());
    LOCKSTEP_CHECK(!acceptor.on_proof(take<Mac>(input)), "a proof without the secret");
  }
}

void fuzz_connector(std::span<const std::byte> input) {
  auto connector = ConnectorHandshake::create({.secret = "secret", .epoch = 0, .member_count = 4, .member = 1}, 2);
  LOCKSTEP_CHECK(connector.has_value(), "no random numbers");
  LOCKSTEP_CHECK(!connector->on_challenge(take<ChallengeBytes>(input)), "a challenge without the secret");
}

void fuzz_seal(std::span<const std::byte> input) {
  FrameOpener opener(Mac{});
  if (input.size() >= kFrameHeaderBytes + kFrameTagBytes) {
    std::vector<std::byte> sealed(input.begin(), input.end());
    FrameSealer(Mac{}).seal(sealed);
    if (!std::ranges::equal(sealed, input)) {
      LOCKSTEP_CHECK(!FrameOpener(Mac{}).open(input), "a seal without the key");
    }
    LOCKSTEP_CHECK(opener.open(sealed) && !opener.open(sealed), "a seal that does not hold, or holds twice");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const auto input = std::as_bytes(std::span(data + 1, size - 1));
  constexpr std::array kParts{fuzz_frame, fuzz_acceptor, fuzz_connector, fuzz_seal};
  kParts[data[0] % kParts.size()](input);
  return 0;
}
