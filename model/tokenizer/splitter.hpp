// Splitter: cuts a text into the pieces that byte-pair merges stay within, by a regular expression.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"

struct pcre2_real_code_8;  // PCRE2's own name for pcre2_code: its header stays in splitter.cpp

namespace lockstep::model {

/// The pattern of a pre_tokenizer, compiled.      Threads  const calls from any.
class Splitter {
 public:
  /// `pattern` is in Oniguruma's syntax, as tokenizer.json has it.
  /// Errors  kUnsupported: a construct that PCRE2 reads differently, or a pattern that can match nothing; kInvalidArgument: no regular expression.
  [[nodiscard]] static Result<Splitter> create(std::string_view pattern);

  /// Appends the pieces of `text`, which must be valid UTF-8: each match, and each stretch between matches. They add up to the text.
  /// Errors  kResourceExhausted: the pattern takes more steps on this text than a sane one would.
  [[nodiscard]] Status split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  explicit Splitter(std::unique_ptr<pcre2_real_code_8, Free> code) : code_(std::move(code)) {}

  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace lockstep::model
