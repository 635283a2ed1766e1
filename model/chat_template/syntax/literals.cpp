// String literals.
#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "model/chat_template/syntax/lexer.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

std::optional<char> named_escape(char letter) {
  static constexpr std::string_view kLetters = "\\'\"abfnrtv";
  static constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
  const std::size_t place = kLetters.find(letter);
  return place == std::string_view::npos ? std::nullopt : std::optional<char>(kValues[place]);
}

/// \x, \u and \U with this many digits.
Result<char32_t> hexadecimal(std::string_view digits, std::size_t count) {
  std::uint32_t value = 0;
  const std::string_view wanted = digits.substr(0, count);
  const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), value, 16);
  if (wanted.size() != count || end != wanted.data() + count || value > 0x10FFFF) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("a broken escape in a string: expected {} hexadecimal digits of a code point", count)};
  }
  if (value >= 0xD800 && value < 0xE000) {
    return Error{ErrorCode::kUnsupported, "half of a surrogate pair in a string: write the whole code point by \\U and eight digits"};
  }
  return static_cast<char32_t>(value);
}

}  // namespace

Result<std::string> unescape(std::string_view literal) {
  std::string result;
  for (std::size_t i = 0; i < literal.size(); ++i) {
    if (literal[i] != '\\' || i + 1 == literal.size()) {
      result += literal[i];
      continue;
    }
    const char letter = literal[++i];
    if (const std::optional<char> named = named_escape(letter)) {
      result += *named;
    } else if (letter == 'x' || letter == 'u' || letter == 'U') {
      const std::size_t count = letter == 'x' ? 2 : letter == 'u' ? 4 : 8;
      LOCKSTEP_ASSIGN_OR_RETURN(const char32_t value, hexadecimal(literal.substr(i + 1), count));
      append_code_point(value, result);
      i += count;
    } else if (letter >= '0' && letter <= '7') {
      char32_t value = 0;
      std::size_t count = 0;
      while (count < 3 && i + count < literal.size() && literal[i + count] >= '0' && literal[i + count] <= '7') {
        value = value * 8 + static_cast<char32_t>(literal[i + count] - '0');
        ++count;
      }
      append_code_point(value, result);
      i += count - 1;
    } else if (letter == 'N') {
      return Error{ErrorCode::kUnsupported, "\\N{...} in a string: write the code point by \\u and four digits"};
    } else if (letter != '\n') {  // a backslash before a line break joins the lines
      result += '\\';
      result += letter;
    }
  }
  return result;
}

}  // namespace lockstep::model::chat
