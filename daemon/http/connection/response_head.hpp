// The head of a response as bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "daemon/http/exchange.hpp"

namespace lockstep::daemon {

/// How the body's end is told to the client.
enum class BodyFraming { kLength, kChunked, kUntilClose, kNone };

struct HeadOptions {
  int status = 200;
  std::string_view content_type;
  BodyFraming framing = BodyFraming::kLength;
  std::size_t body_bytes = 0;  ///< with kLength
  bool keep_alive = true;
  std::string_view request_id;
};

/// Status line and headers, with the empty line. Values with control characters are left out: a value can never start a header of its own.
[[nodiscard]] std::string make_response_head(const HeadOptions& options, std::span<const HttpHeader> headers, std::span<const HttpHeader> more_headers);

/// The line before a chunk of so many bytes.
[[nodiscard]] std::string chunk_size_line(std::size_t bytes);

/// Gives `sink` the pieces of `piece` as one chunk of a chunked body.
template <typename Sink>
void append_chunk(std::string_view piece, Sink sink) {
  sink(chunk_size_line(piece.size()));
  sink(piece);
  sink(std::string_view("\r\n"));
}
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

/// A client's x-request-id may be echoed: 1 to 64 characters of [A-Za-z0-9._-].
[[nodiscard]] bool is_harmless_request_id(std::string_view text);

}  // namespace lockstep::daemon
