// error_response: OpenAI's form of an error.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "daemon/http/exchange.hpp"

namespace lockstep::daemon {

/// What a client is told. `param` is the field at fault; `code` is stable and meant for programs.
struct ApiError {
  int status = 400;
  std::string message;
  std::string code;
  std::optional<std::string> param{};
  int retry_after_seconds = 0;  ///< 0: no Retry-After
};

/// {"error":{"message","type","param","code"}}; the type follows from the status.
[[nodiscard]] std::string error_body(const ApiError& error);
[[nodiscard]] HttpResponse error_response(const ApiError& error);

}  // namespace lockstep::daemon
