// Which Content-Type a JSON body may have.
#pragma once

#include <string_view>

#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {

/// application/json, with or without parameters; also none.
[[nodiscard]] inline bool is_json_content_type(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  return content_type.empty() ||
         (content_type.starts_with(kJson) && (content_type.size() == kJson.size() || content_type[kJson.size()] == ';' || content_type[kJson.size()] == ' '));
}

[[nodiscard]] inline ApiError wrong_content_type() {
  return {.status = 415, .message = "the Content-Type must be application/json", .code = "unsupported_media_type"};
}

}  // namespace lockstep::daemon
