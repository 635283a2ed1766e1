// Frames: what two authenticated peers say to each other, each kind of one fixed size.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "lockstep/comm/step_progress.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::comm::peer {

struct HeartbeatFrame {
  ProgressReport progress;
  std::int64_t sender_clock_ns = 0;  ///< the sender's steady clock: differences only
  std::int64_t echo_clock_ns = 0;    ///< sender_clock_ns of the last heartbeat that came from the receiver; 0: none came yet
  std::int64_t echo_held_ns = 0;     ///< since it came
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
struct ReportRequestFrame {
  std::uint32_t number = 0;   ///< of the question; comes back in each part of the answer
  std::int64_t argument = 0;  ///< what is asked for
};
/// A report, cut into parts that come in order.
struct ReportPartFrame {
  std::uint32_t number = 0;
  bool last = false;
  std::vector<std::byte> content{};  ///< at most kReportPartBytesMax
};
using Frame = std::variant<HeartbeatFrame, WakeFrame, FailureFrame, GoodbyeFrame, ReportRequestFrame, ReportPartFrame>;

inline constexpr std::size_t kFailureMessageBytesMax = 1024;
/// Kind (one byte) and three zero bytes.
inline constexpr std::size_t kFrameHeaderBytes = 4;
/// Truncated HMAC-SHA256 at the end of each frame.
inline constexpr std::size_t kFrameTagBytes = 16;
inline constexpr std::size_t kReportPartBytesMax = 8192;
/// Header, the largest body (a report's part: number, last, a zero byte, length, content) and tag.
inline constexpr std::size_t kFrameBytesMax = kFrameHeaderBytes + 8 + kReportPartBytesMax + kFrameTagBytes;
/// The same of all other kinds (the largest is failure: code, has_rank, length, rank, message).
inline constexpr std::size_t kShortFrameBytesMax = kFrameHeaderBytes + 8 + kFailureMessageBytesMax + kFrameTagBytes;

/// The whole frame's size, header and tag included, told by its header; nullopt when the header is none of ours.
/// A peer chooses among six constants, never a length: nothing is allocated by what it says but a report's part, of at most its constant.
[[nodiscard]] std::optional<std::size_t> frame_bytes(std::span<const std::byte, kFrameHeaderBytes> header);

/// Writes header and body; the tag's room after it is left as it is. Returns the size with the tag.
[[nodiscard]] std::size_t encode_frame(const Frame& frame, std::span<std::byte> buffer);
/// `bytes` is a whole frame whose tag was verified.      Errors  kInvalidArgument: a value that no member of this version sends.
[[nodiscard]] Result<Frame> decode_frame(std::span<const std::byte> bytes);

}  // namespace lockstep::comm::peer
