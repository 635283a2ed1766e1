// Which Content-Type a JSON body may have.
#pragma once

#include <algorithm>
#include <string_view>

#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {

/// application/json in letters of any case, with or without parameters. None is refused: a page of another origin can send a body without a type, unasked.
[[nodiscard]] inline bool is_json_content_type(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  const auto is_same = [](char letter, char lower) { return (letter >= 'A' && letter <= 'Z' ? letter - 'A' + 'a' : letter) == lower; };
  return std::ranges::equal(content_type.substr(0, content_type.find_first_of("; \t")), kJson, is_same);
}

[[nodiscard]] inline ApiError wrong_content_type() {
  return {.status = 415, .message = "the Content-Type must be application/json", .code = "unsupported_media_type"};
}

}  // namespace lockstep::daemon
