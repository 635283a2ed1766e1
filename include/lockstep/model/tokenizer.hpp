// Tokenizer: text to token ids and back, from tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"

namespace lockstep::model {

/// A byte-level BPE tokenizer as Hugging Face's `tokenizers` runs it: added tokens, NFC, splitting by a regular expression, merges.      Threads  const calls
/// from any.
class Tokenizer {
 public:
  /// Errors  kInvalidArgument, kUnsupported: file, JSON path, found, expected.
  [[nodiscard]] static Result<std::unique_ptr<Tokenizer>> open(const std::filesystem::path& tokenizer_json);
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Any bytes; text that is not UTF-8 is refused (kInvalidArgument, with the offset). Special tokens written out in the text are recognised.
  [[nodiscard]] virtual Result<std::vector<std::int32_t>> encode(std::string_view text) const = 0;
  /// The bytes of the tokens; invalid UTF-8 becomes U+FFFD as the reference does. Ids outside the vocabulary: kInvalidArgument.
  [[nodiscard]] virtual Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const = 0;
  /// Raw bytes of one token, "" for an unknown id; special tokens give their text.
  [[nodiscard]] virtual std::string_view token_bytes(std::int32_t id) const = 0;
  [[nodiscard]] virtual bool is_special(std::int32_t id) const = 0;
  [[nodiscard]] virtual std::int32_t vocabulary_size() const = 0;  ///< largest id + 1

 protected:
  Tokenizer() = default;
};

/// Text of a growing sequence, piece by piece: never cuts a character, and the pieces add up to `decode` of the whole.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true) : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}
  /// What can be shown after this token: "" while a character is incomplete.
  [[nodiscard]] std::string push(std::int32_t id);
  /// The rest: an incomplete character becomes U+FFFD.
  [[nodiscard]] std::string finish();
  /// Whether the last token's text begins after a U+FFFD of the tokens before it: they had begun a character that it does not continue.
  [[nodiscard]] bool broke_character() const { return broke_character_; }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;
  bool broke_character_ = false;
};

}  // namespace lockstep::model
