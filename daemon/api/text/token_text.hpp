// The text of one token, as log probabilities name it.
#pragma once

#include <cstdint>
#include <string>

#include "lockstep/model/tokenizer.hpp"

namespace lockstep::daemon {

/// UTF-8; bytes that are no character become U+FFFD.
[[nodiscard]] std::string token_text(const model::Tokenizer& tokenizer, std::int32_t token);
/// The same where the token is whole characters; else "bytes:\xe2\x82", as OpenAI's completions name it, so that two tokens do not get one name.
[[nodiscard]] std::string token_text_or_bytes(const model::Tokenizer& tokenizer, std::int32_t token);

}  // namespace lockstep::daemon
