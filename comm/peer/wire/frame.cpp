#include "comm/peer/wire/frame.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "comm/peer/wire/little_endian.hpp"

namespace lockstep::comm::peer {

namespace {

enum class FrameKind : std::uint8_t { kHeartbeat = 1, kWake = 2, kFailure = 3, kGoodbye = 4, kReportRequest = 5, kReportPart = 6 };

constexpr std::size_t kHeartbeatBodyBytes = 8 + 8 + 8 + 8 + 8 + 4 + 1;
constexpr std::size_t kWakeBodyBytes = 4 + 8;
constexpr std::size_t kFailureBodyBytes = 1 + 1 + 2 + 4 + kFailureMessageBytesMax;
constexpr std::size_t kReportRequestBodyBytes = 4 + 8;
constexpr std::size_t kReportPartBodyBytes = 4 + 1 + 1 + 2 + kReportPartBytesMax;
static_assert(kFrameHeaderBytes + kFailureBodyBytes + kFrameTagBytes == kShortFrameBytesMax);
static_assert(kFrameHeaderBytes + kReportPartBodyBytes + kFrameTagBytes == kFrameBytesMax);

void put_header(ByteWriter& writer, FrameKind kind) {
  writer.put(static_cast<std::uint8_t>(kind));
  writer.put(std::uint8_t{0});
  writer.put(std::uint16_t{0});
}

struct BodyWriter {
  ByteWriter& writer;

  void operator()(const HeartbeatFrame& frame) const {
    put_header(writer, FrameKind::kHeartbeat);
    writer.put(frame.progress.ticks);
    writer.put(frame.progress.step);
    writer.put(frame.sender_clock_ns);
    writer.put(frame.echo_clock_ns);
    writer.put(frame.echo_held_ns);
    writer.put(frame.progress.layer);
    writer.put(static_cast<std::uint8_t>(frame.progress.phase));
  }
  void operator()(const WakeFrame& frame) const {
    put_header(writer, FrameKind::kWake);
    writer.put(frame.epoch);
    writer.put(frame.step);
  }
  void operator()(const FailureFrame& frame) const {
    put_header(writer, FrameKind::kFailure);
    const std::size_t length = std::min(frame.message.size(), kFailureMessageBytesMax);
    writer.put(static_cast<std::uint8_t>(frame.code));
    writer.put(static_cast<std::uint8_t>(frame.rank.has_value()));
    writer.put(static_cast<std::uint16_t>(length));
    writer.put(frame.rank.value_or(0));
    writer.put_bytes(std::as_bytes(std::span(frame.message).first(length)));
    writer.put_zeros(kFailureMessageBytesMax - length);
  }
  void operator()(const GoodbyeFrame&) const { put_header(writer, FrameKind::kGoodbye); }
  void operator()(const ReportRequestFrame& frame) const {
    put_header(writer, FrameKind::kReportRequest);
    writer.put(frame.number);
    writer.put(frame.argument);
  }
  void operator()(const ReportPartFrame& frame) const {
    put_header(writer, FrameKind::kReportPart);
    const std::size_t length = std::min(frame.content.size(), kReportPartBytesMax);
    writer.put(frame.number);
    writer.put(static_cast<std::uint8_t>(frame.last));
    writer.put(std::uint8_t{0});
    writer.put(static_cast<std::uint16_t>(length));
    writer.put_bytes(std::span(frame.content).first(length));
    writer.put_zeros(kReportPartBytesMax - length);
  }
};

Result<Frame> decode_heartbeat(ByteReader& reader) {
  HeartbeatFrame frame;
  frame.progress.ticks = reader.get<std::uint64_t>();
  frame.progress.step = reader.get<std::int64_t>();
  frame.sender_clock_ns = reader.get<std::int64_t>();
  frame.echo_clock_ns = reader.get<std::int64_t>();
  frame.echo_held_ns = reader.get<std::int64_t>();
  frame.progress.layer = reader.get<std::int32_t>();
  const auto phase = reader.get<std::uint8_t>();
  if (phase > static_cast<std::uint8_t>(StepPhase::kStopped)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("heartbeat with step phase {}, known are 0 to {}", phase, static_cast<int>(StepPhase::kStopped))};
  }
  frame.progress.phase = static_cast<StepPhase>(phase);
  return Frame{frame};
}

Result<Frame> decode_failure(ByteReader& reader) {
  const auto code = reader.get<std::uint8_t>();
  const bool has_rank = reader.get<std::uint8_t>() != 0;
  const auto length = reader.get<std::uint16_t>();
  const auto rank = reader.get<std::int32_t>();
  if (code > static_cast<std::uint8_t>(ErrorCode::kInternal) || length > kFailureMessageBytesMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("failure report with code {} and a message of {} bytes, at most {} and {} are known", code, length,
                                                          static_cast<int>(ErrorCode::kInternal), kFailureMessageBytesMax)};
  }
  FailureFrame frame{.code = static_cast<ErrorCode>(code)};
  if (has_rank) {
    frame.rank = rank;
  }
  for (const std::byte byte : reader.get_bytes(length)) {
    const auto character = static_cast<unsigned char>(byte);
    // The message ends up in our log and in /health: a peer must not be able to start a line of its own there.
    frame.message.push_back(character < 0x20U || character == 0x7fU ? ' ' : static_cast<char>(character));
  }
  return Frame{std::move(frame)};
}

Result<Frame> decode_report_part(ByteReader& reader) {
  ReportPartFrame frame;
  frame.number = reader.get<std::uint32_t>();
  const auto last = reader.get<std::uint8_t>();
  const auto zero = reader.get<std::uint8_t>();
  const auto length = reader.get<std::uint16_t>();
  if (last > 1 || zero != 0 || length > kReportPartBytesMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("part of a report with {} bytes and the marks {} and {}, expected at most {}, 0 or 1, and 0", length,
                                                          last, zero, kReportPartBytesMax)};
  }
  frame.last = last == 1;
  const std::span<const std::byte> content = reader.get_bytes(length);
  frame.content.assign(content.begin(), content.end());
  return Frame{std::move(frame)};
}

}  // namespace

std::optional<std::size_t> frame_bytes(std::span<const std::byte, kFrameHeaderBytes> header) {
  if (header[1] != std::byte{0} || header[2] != std::byte{0} || header[3] != std::byte{0}) {
    return std::nullopt;
  }
  switch (static_cast<FrameKind>(header[0])) {
    case FrameKind::kHeartbeat:
      return kFrameHeaderBytes + kHeartbeatBodyBytes + kFrameTagBytes;
    case FrameKind::kWake:
      return kFrameHeaderBytes + kWakeBodyBytes + kFrameTagBytes;
    case FrameKind::kFailure:
      return kFrameHeaderBytes + kFailureBodyBytes + kFrameTagBytes;
    case FrameKind::kGoodbye:
      return kFrameHeaderBytes + kFrameTagBytes;
    case FrameKind::kReportRequest:
      return kFrameHeaderBytes + kReportRequestBodyBytes + kFrameTagBytes;
    case FrameKind::kReportPart:
      return kFrameHeaderBytes + kReportPartBodyBytes + kFrameTagBytes;
  }
  return std::nullopt;
}

std::size_t encode_frame(const Frame& frame, std::span<std::byte> buffer) {
  ByteWriter writer(buffer);
  std::visit(BodyWriter{writer}, frame);
  return writer.used() + kFrameTagBytes;
}

Result<Frame> decode_frame(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  const auto kind = static_cast<FrameKind>(reader.get<std::uint8_t>());
  static_cast<void>(reader.get_bytes(kFrameHeaderBytes - 1));
  switch (kind) {
    case FrameKind::kHeartbeat:
      return decode_heartbeat(reader);
    case FrameKind::kWake: {
      WakeFrame frame;
      frame.epoch = reader.get<std::int32_t>();
      frame.step = reader.get<std::int64_t>();
      return Frame{frame};
    }
    case FrameKind::kFailure:
      return decode_failure(reader);
    case FrameKind::kGoodbye:
      return Frame{GoodbyeFrame{}};
    case FrameKind::kReportRequest: {
      ReportRequestFrame frame;
      frame.number = reader.get<std::uint32_t>();
      frame.argument = reader.get<std::int64_t>();
      return Frame{frame};
    }
    case FrameKind::kReportPart:
      return decode_report_part(reader);
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("frame of unknown kind {}", static_cast<int>(kind))};
}

}  // namespace lockstep::comm::peer
