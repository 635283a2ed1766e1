// The byte-level alphabet: each byte as one printable character, as tokenizer.json writes tokens.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep::model {

/// The character that stands for each byte, as UTF-8.      Source  the byte alphabet of GPT-2's tokenizer: printable Latin-1 stands for itself, the other
/// 68 bytes for U+0100 and the characters after it, in order.
[[nodiscard]] std::array<std::string, 256> byte_characters();

/// The bytes that a token's text stands for; a text with any character outside the alphabet stands for its own UTF-8 bytes, as in the reference's decoder.
struct TokenBytes {
  std::string bytes;
  bool in_alphabet = false;
};
[[nodiscard]] TokenBytes token_bytes_of(std::string_view text);

}  // namespace lockstep::model
