// read_completion_request: the body of POST /v1/completions.
#pragma once

#include <optional>
#include <string_view>

#include "daemon/api/api_format.hpp"

namespace lockstep::daemon {

/// As ApiFormat::read.
[[nodiscard]] std::optional<ApiError> read_completion_request(std::string_view body, const ApiContext& context, GenerationJob& job);

}  // namespace lockstep::daemon
