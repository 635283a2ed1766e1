// The bodies of completions: one JSON object, or the events of a stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {

/// What all objects of one completion share.
struct CompletionHeader {
  std::string id;            ///< "cmpl-..."
  std::int64_t created = 0;  ///< seconds since 1970
  std::string_view model;
};

struct CompletionUsage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
};

[[nodiscard]] std::string completion_body(const CompletionHeader& header, std::string_view text, std::string_view finish_reason, const CompletionUsage& usage);
/// One SSE event. `finish_reason` empty: null. `usage_follows`: the chunk carries "usage": null, as OpenAI's do when usage was asked for.
[[nodiscard]] std::string completion_chunk(const CompletionHeader& header, std::string_view text, std::string_view finish_reason, bool usage_follows);
[[nodiscard]] std::string completion_usage_chunk(const CompletionHeader& header, const CompletionUsage& usage);
/// An SSE event with the error's object: a stream's status is already sent.
[[nodiscard]] std::string error_chunk(const ApiError& error);
inline constexpr std::string_view kDoneChunk = "data: [DONE]\n\n";

}  // namespace lockstep::daemon
