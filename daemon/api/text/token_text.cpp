#include "daemon/api/text/token_text.hpp"

#include <iterator>

#include <fmt/format.h>

namespace lockstep::daemon {

std::string token_text(const model::Tokenizer& tokenizer, std::int32_t token) {
  Result<std::string> text = tokenizer.decode({&token, 1}, false);
  return text ? std::move(*text) : std::string();  // a row of the vocabulary that the tokenizer has no token for
}

std::string token_text_or_bytes(const model::Tokenizer& tokenizer, std::int32_t token) {
  std::string text = token_text(tokenizer, token);
  const std::string_view bytes = tokenizer.token_bytes(token);
  if (text == bytes) {
    return text;
  }
  text = "bytes:";
  for (const char byte : bytes) {
    fmt::format_to(std::back_inserter(text), "\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(byte)));
  }
  return text;
}

}  // namespace lockstep::daemon
