// read_chat_request: the body of POST /v1/chat/completions.
#pragma once

#include <optional>
#include <string_view>

#include "daemon/api/api_format.hpp"

namespace lockstep::daemon {

/// As ApiFormat::read. The one prompt is the conversation as the model's chat template renders it; special tokens that it writes out are tokens.
[[nodiscard]] std::optional<ApiError> read_chat_request(std::string_view body, const ApiContext& context, GenerationJob& job);

}  // namespace lockstep::daemon
