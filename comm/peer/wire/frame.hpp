// Frames: what two authenticated peers say to each other, each kind of one fixed size.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "lockstep/comm/step_progress.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::comm::peer {

struct HeartbeatFrame {
  ProgressReport progress;
  std::int64_t sender_clock_ns = 0;  ///< the sender's steady clock: differences only
};
struct WakeFrame {
  std::int32_t epoch = 0;
  std::int64_t step = 0;
};
struct FailureFrame {
  ErrorCode code = ErrorCode::kInternal;
  std::optional<std::int32_t> rank{};  ///< the rank at fault, where the reporter knows one
  std::string message{};               ///< cut to kFailureMessageBytesMax
};
struct GoodbyeFrame {};
using Frame = std::variant<HeartbeatFrame, WakeFrame, FailureFrame, GoodbyeFrame>;

inline constexpr std::size_t kFailureMessageBytesMax = 1024;
/// Kind (one byte) and three zero bytes.
inline constexpr std::size_t kFrameHeaderBytes = 4;
/// Truncated HMAC-SHA256 at the end of each frame.
inline constexpr std::size_t kFrameTagBytes = 16;
/// Header, the largest body (failure: code, rank, has_rank, length, message) and tag.
inline constexpr std::size_t kFrameBytesMax = kFrameHeaderBytes + 8 + kFailureMessageBytesMax + kFrameTagBytes;

/// The whole frame's size, header and tag included, told by its header; nullopt when the header is none of ours.
/// A peer chooses among four constants, never a length: nothing is allocated by what it says.
[[nodiscard]] std::optional<std::size_t> frame_bytes(std::span<const std::byte, kFrameHeaderBytes> header);

/// Writes header and body; the tag's room after it is left as it is. Returns the size with the tag.
[[nodiscard]] std::size_t encode_frame(const Frame& frame, std::span<std::byte> buffer);
/// `bytes` is a whole frame whose tag was verified.      Errors  kInvalidArgument: a value that no member of this version sends.
[[nodiscard]] Result<Frame> decode_frame(std::span<const std::byte> bytes);

}  // namespace lockstep::comm::peer
