// CompletionRequest: the body of POST /v1/completions, checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "daemon/http/error_body.hpp"
#include "lockstep/scheduler/request.hpp"

namespace lockstep::daemon {

struct CompletionRequest {
  std::variant<std::string, std::vector<std::int32_t>> prompt;  ///< text, or token ids
  scheduler::SamplingParams sampling;
  bool seed_given = false;  ///< false: the caller of the parser chooses a random one
  std::int32_t max_tokens = 16;
  bool stream = false;
  bool include_usage = false;
  bool ignore_eos = false;
  std::vector<std::int32_t> stop_token_ids;
};

/// Parses and checks `body`: types, ranges, and fields that this server knows and cannot honour, which are refused rather than ignored. Fields that nobody
/// documents are ignored, as OpenAI's clients send new ones at any time.
/// Returns   the error to answer, with the field's name in `param`; then `result` is unspecified.      Cost  O(body); nesting is bounded.
[[nodiscard]] std::optional<ApiError> parse_completion_request(std::string_view body, std::string_view served_name, CompletionRequest& result);

}  // namespace lockstep::daemon
