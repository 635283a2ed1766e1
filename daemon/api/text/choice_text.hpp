// ChoiceText: one generated text, from tokens to what the client may see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "daemon/api/text/stop_strings.hpp"
#include "lockstep/model/sampler.hpp"
#include "lockstep/model/tokenizer.hpp"

namespace lockstep::daemon {

/// One token with its log probabilities.
struct TokenRecord {
  std::int32_t token = 0;
  std::optional<float> log_probability{};  ///< none: of a prompt's first token, which nothing comes before
  std::int64_t text_offset = 0;            ///< characters before it, those of an echo included
  std::vector<model::TokenLogProbability> likeliest{};
};

struct ChoiceTextOptions {
  std::vector<std::string> stop_strings{};
  bool includes_stop_string = false;
  std::int32_t min_tokens = 0;  ///< stop strings are looked for in what comes after so many tokens
  bool log_probabilities = false;
};

/// What of a text is shown at once.
struct TextPiece {
  std::string text{};
  std::vector<TokenRecord> tokens{};  ///< those whose text begins in it; none where log probabilities were not asked for
};

/// Ownership  borrows the tokenizer.      Threads  one at a time.
class ChoiceText {
 public:
  /// `echo`, the prompt's text where the client wants it back, stands before the first piece.
  ChoiceText(const model::Tokenizer& tokenizer, const ChoiceTextOptions& options, std::string echo);

  /// Takes the next token of a prompt that is wanted back with its log probabilities: all of them before the first `push`, in the place of an `echo`. They are
  /// taken with the first piece.
  void push_prompt(std::int32_t token, std::optional<float> log_probability, std::span<const model::TokenLogProbability> likeliest);
  /// Takes the next token, unless a stop string was found before.
  void push(std::int32_t token, float log_probability, std::span<const model::TokenLogProbability> likeliest);
  /// No token comes any more: an incomplete character becomes U+FFFD, what was held back is shown.
  void finish();
  /// A stop string ended the text.
  [[nodiscard]] bool stopped() const { return finder_.found(); }
  /// Whether there is text to take.
  [[nodiscard]] bool has_text() const { return !shown_.empty(); }
  /// What can be shown and was not taken yet. The piece after `finish` is the last.
  [[nodiscard]] TextPiece take();

 private:
  struct Waiting {
    TokenRecord record;
    std::ptrdiff_t begin = 0;  ///< bytes of the generated text before it
  };
  void show_prompt(std::string_view text);
  void end_prompt();
  void show(std::string_view text);

  std::optional<model::StreamDecoder> prompt_decoder_;  ///< while tokens of a prompt may come
  model::StreamDecoder decoder_;
  StopStringFinder finder_;
  std::int32_t min_tokens_;
  bool log_probabilities_;
  std::int32_t token_count_ = 0;
  bool finished_ = false;
  std::string shown_;              ///< not yet taken
  std::size_t echo_bytes_left_;    ///< of `shown_`
  std::size_t taken_bytes_ = 0;    ///< of the generated text
  std::size_t decoded_bytes_ = 0;  ///< of the generated text, what is held back included
  std::int64_t decoded_characters_ = 0;
  std::vector<Waiting> waiting_;
};

}  // namespace lockstep::daemon
