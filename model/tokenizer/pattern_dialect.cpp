#include "model/tokenizer/pattern_dialect.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace lockstep::model {

namespace {

// White space as Oniguruma has it. PCRE2's \s also takes U+180E, which is none since Unicode 6.3.
constexpr std::string_view kSpaceMembers = R"(\t-\r\x{85}\p{Z})";

// Groups that both read alike. Option letters are not among them: (?m) lets the dot match newlines in one and moves anchors in the other.
constexpr std::array<std::string_view, 7> kGroups{"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};

// General categories only: of a script's name PCRE2 takes the script's extensions too.
constexpr std::array<std::string_view, 37> kCategories{"C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",
                                                       "Mc", "Me", "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi",
                                                       "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> run() {
    while (position_ < pattern_.size()) {
      LOCKSTEP_RETURN_IF_ERROR(in_class_ ? class_member() : construct());
    }
    return std::move(result_);
  }

 private:
  [[nodiscard]] Error unsupported(std::size_t length, std::string_view why) const {
    return Error{ErrorCode::kUnsupported, fmt::format("\"{}\" at byte {}: {}", pattern_.substr(position_, length), position_, why)};
  }

  void take(std::size_t length) {
    result_.append(pattern_.substr(position_, length));
    position_ += length;
  }

  Status escape() {
    if (position_ + 1 == pattern_.size()) {
      return unsupported(1, "a backslash at the end");
    }
    const char letter = pattern_[position_ + 1];
    if (letter == 's' || letter == 'S') {
      if (in_class_ && letter == 'S') {
        return unsupported(2, "not supported within a character class");
      }
      result_ += in_class_ ? std::string(kSpaceMembers) : fmt::format("[{}{}]", letter == 'S' ? "^" : "", kSpaceMembers);
      position_ += 2;
      return {};
    }
    if (letter == 'p' || letter == 'P') {
      return category();
    }
    const bool letter_or_digit = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9');
    if (letter_or_digit && std::string_view("rntd").find(letter) == std::string_view::npos) {
      return unsupported(2, "supported escapes are \\s \\S \\d \\p \\P \\r \\n \\t and escaped punctuation");
    }
    take(2);
    return {};
  }

  Status category() {
    const std::size_t end = pattern_.find('}', position_);
    if (end == std::string_view::npos || pattern_[position_ + 2] != '{') {
      return unsupported(3, "expected a general category in braces");
    }
    const std::string_view name = pattern_.substr(position_ + 3, end - position_ - 3);
    if (std::ranges::find(kCategories, name) == kCategories.end()) {
      return unsupported(end + 1 - position_, "only general categories such as L or Nd are supported");
    }
    take(end + 1 - position_);
    return {};
  }

  Status class_member() {
    const char byte = pattern_[position_];
    if (byte == '\\') {
      return escape();
    }
    if (byte == '[' || pattern_.substr(position_).starts_with("&&")) {
      return unsupported(2, "sets within sets are not supported");
    }
    if (byte == ']') {
      in_class_ = false;
    }
    take(1);
    return {};
  }

  Status open_class() {
    const bool negated = pattern_.substr(position_).starts_with("[^");
    if (pattern_.substr(position_ + (negated ? 2 : 1)).starts_with(']')) {
      return unsupported(negated ? 3 : 2, "an empty character class");
    }
    take(negated ? 2 : 1);
    in_class_ = true;
    return {};
  }

  Status group() {
    if (pattern_.substr(position_).starts_with("(?")) {
      const auto known = std::ranges::find_if(kGroups, [this](std::string_view group) { return pattern_.substr(position_).starts_with(group); });
      if (known == kGroups.end()) {
        return unsupported(4, "supported groups are (?: (?i: (?= (?! (?<= (?<! (?>");
      }
      take(known->size());
      return {};
    }
    if (pattern_.substr(position_).starts_with("(*")) {
      return unsupported(3, "a verb of PCRE2's own");
    }
    take(1);
    return {};
  }

  /// {n}, {n,} or {n,m}; without + or ? behind it, which are possessive and lazy in one and ordinary quantifiers in the other.
  Status counted() {
    const std::size_t end = pattern_.find('}', position_);
    const std::string_view inner = end == std::string_view::npos ? "" : pattern_.substr(position_ + 1, end - position_ - 1);
    if (inner.empty() || inner.front() == ',' || inner.find_first_not_of("0123456789,") != std::string_view::npos || std::ranges::count(inner, ',') > 1) {
      return unsupported(2, "expected {n}, {n,} or {n,m}");
    }
    if (end + 1 < pattern_.size() && (pattern_[end + 1] == '+' || pattern_[end + 1] == '?')) {
      return unsupported(end + 2 - position_, "a counted repeat with + or ? behind it");
    }
    take(end + 1 - position_);
    return {};
  }

  Status construct() {
    switch (pattern_[position_]) {
      case '\\':
        return escape();
      case '[':
        return open_class();
      case '(':
        return group();
      case '{':
        return counted();
      case '^':
      case '$':
      case '.':
        return unsupported(1, "anchors and the dot are not supported: what they take for a line's end differs");
      default:
        take(1);
        return {};
    }
  }

  std::string_view pattern_;
  std::size_t position_ = 0;
  bool in_class_ = false;
  std::string result_;
};

}  // namespace

Result<std::string> translate_pattern(std::string_view pattern) {
  return Translator(pattern).run();
}

}  // namespace lockstep::model
