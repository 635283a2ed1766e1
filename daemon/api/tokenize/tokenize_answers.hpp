// The answers of POST /tokenize and /detokenize.
#pragma once

#include <cstdint>
#include <string_view>

#include "daemon/api/api_format.hpp"
#include "daemon/http/exchange.hpp"

namespace lockstep::daemon {

struct TokenizeContext {
  ApiContext api;
  std::int64_t max_model_len = 0;  ///< told with each answer
};

/// {"prompt": text} or {"messages": [...]} to {"count", "max_model_len", "tokens", "token_strs"}.      Threads  any.
[[nodiscard]] HttpResponse tokenize_answer(std::string_view body, const TokenizeContext& context);
/// {"tokens": [...]} to {"prompt": text}.      Threads  any.
[[nodiscard]] HttpResponse detokenize_answer(std::string_view body, const TokenizeContext& context);

}  // namespace lockstep::daemon
