// Lexer: a template's text to tokens, with whitespace control applied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"
#include "model/chat_template/syntax/source_text.hpp"

namespace lockstep::model::chat {

struct Token {
  enum class Kind { kData, kVariableBegin, kVariableEnd, kBlockBegin, kBlockEnd, kName, kString, kInteger, kNumber, kOperator, kEnd };
  Kind kind = Kind::kEnd;
  std::size_t offset = 0;  ///< in the source
  std::string text;        ///< of kData, kName, kOperator; of kString with its escapes resolved
  std::int64_t integer = 0;
  double number = 0;

  [[nodiscard]] bool is_name(std::string_view name) const { return kind == Kind::kName && text == name; }
  [[nodiscard]] bool is_operator(std::string_view symbol) const { return kind == Kind::kOperator && text == symbol; }
};

/// All tokens of a source; the last is kEnd. Blocks are trimmed as the reference library sets it: the line break after a block goes (trim_blocks), and the
/// blanks before a block that begins its line (lstrip_blocks); "-" takes all whitespace on its side, "+" keeps it.
/// Errors  kInvalidArgument: something that ends nowhere, a character or number that is no token.
[[nodiscard]] Result<std::vector<Token>> tokenize(const SourceText& source);

/// The value of a string literal between its quotes: Python's escapes.
/// Errors  kInvalidArgument, without a place: a broken escape; kUnsupported: \N{...}, half of a surrogate pair.
[[nodiscard]] Result<std::string> unescape(std::string_view literal);

}  // namespace lockstep::model::chat
