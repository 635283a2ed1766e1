#include "model/chat_template/syntax/lexer.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

constexpr std::size_t kNone = std::string_view::npos;

bool is_digit(char character) {
  return character >= '0' && character <= '9';
}

class Lexer {
 public:
  explicit Lexer(const SourceText& source) : source_(source), text_(source.text()) {}

  Result<std::vector<Token>> run() {
    while (position_ < text_.size()) {
      LOCKSTEP_RETURN_IF_ERROR(next_root());
    }
    add(Token::Kind::kEnd, text_.size());
    return std::move(tokens_);
  }

 private:
  Token& add(Token::Kind kind, std::size_t offset, std::string_view token_text = {}) {
    tokens_.push_back({.kind = kind, .offset = offset, .text = std::string(token_text)});
    return tokens_.back();
  }

  [[nodiscard]] Error error(std::size_t offset, std::string_view message) const { return source_.error(offset, ErrorCode::kInvalidArgument, message); }
  [[nodiscard]] char at(std::size_t offset) const { return offset < text_.size() ? text_[offset] : '\0'; }
  [[nodiscard]] bool has(std::size_t offset, std::string_view part) const { return text_.substr(std::min(offset, text_.size())).starts_with(part); }

  std::size_t skip_space(std::size_t offset) const {
    const std::string_view rest = text_.substr(offset);
    return offset + rest.size() - strip_left(rest).size();
  }

  /// Text up to a tag at `begin` whose sign is `sign`: what whitespace control leaves of it.
  void add_data(std::size_t begin, char sign, bool is_variable) {
    std::string_view data = text_.substr(position_, begin - position_);
    if (sign == '-') {
      data = strip_right(data);
    } else if (sign != '+' && !is_variable) {
      const std::size_t line_break = data.rfind('\n');
      const std::size_t line_start = line_break == kNone ? 0 : line_break + 1;
      if ((line_start > 0 || line_starting_) && strip_left(data.substr(line_start)).empty()) {
        data = data.substr(0, line_start);
      }
    }
    if (!data.empty()) {
      add(Token::Kind::kData, position_, data);
    }
  }

  /// Moves past an end sequence: "-" takes all whitespace, "+" nothing, otherwise one line break goes where `trims`.
  void finish_tag(std::size_t end, bool trims) {
    const std::size_t start = position_;
    if (at(end) == '-') {
      position_ = skip_space(end + 3);
    } else if (at(end) == '+') {
      position_ = end + 3;
    } else {
      position_ = end + 2;
      position_ += trims && at(position_) == '\n' ? 1 : 0;
    }
    line_starting_ = position_ > start && text_[position_ - 1] == '\n';
  }

  /// Where the end of a tag stands, whether it is `symbol`, -`symbol` or, where blocks end, +`symbol`.
  [[nodiscard]] bool ends_tag(std::size_t offset, std::string_view symbol, bool plus_allowed) const {
    return has(offset, symbol) || ((at(offset) == '-' || (plus_allowed && at(offset) == '+')) && has(offset + 1, symbol));
  }

  Status next_root() {
    std::size_t begin = position_;
    do {
      begin = text_.find('{', begin);
    } while (begin != kNone && at(begin + 1) != '%' && at(begin + 1) != '{' && at(begin + 1) != '#' && (++begin, true));
    if (begin == kNone) {
      add(Token::Kind::kData, position_, text_.substr(position_));
      position_ = text_.size();
      return {};
    }
    const char sign = at(begin + 2) == '-' || at(begin + 2) == '+' ? at(begin + 2) : '\0';
    const std::size_t inside = begin + (sign == '\0' ? 2 : 3);
    const char kind = at(begin + 1);
    add_data(begin, sign, kind == '{');
    line_starting_ = false;
    if (kind == '#') {
      return comment(begin, inside);
    }
    if (kind == '%') {
      if (const std::size_t raw_end = raw_begin(inside); raw_end != kNone) {
        return raw(begin, raw_end);
      }
    }
    add(kind == '%' ? Token::Kind::kBlockBegin : Token::Kind::kVariableBegin, begin);
    position_ = inside;
    return tag(begin, kind == '%');
  }

  Status comment(std::size_t begin, std::size_t inside) {
    const std::size_t close = text_.find("#}", inside);
    if (close == kNone) {
      return error(begin, "a comment that does not end: add \"#}\"");
    }
    const bool has_sign = close > inside && (text_[close - 1] == '-' || text_[close - 1] == '+');
    finish_tag(has_sign ? close - 1 : close, true);
    return {};
  }

  /// Behind "{% raw %}" whose name would begin at `inside`, kNone where the tag is another one.
  [[nodiscard]] std::size_t raw_begin(std::size_t inside) const {
    const std::size_t name = skip_space(inside);
    if (!has(name, "raw")) {
      return kNone;
    }
    const std::size_t end = skip_space(name + 3);
    if (has(end, "-%}")) {
      return skip_space(end + 3);
    }
    return has(end, "%}") ? end + 2 : kNone;
  }

  Status raw(std::size_t begin, std::size_t content) {
    position_ = content;
    line_starting_ = text_[content - 1] == '\n';
    for (std::size_t tag_begin = text_.find("{%", content); tag_begin != kNone; tag_begin = text_.find("{%", tag_begin + 2)) {
      const char sign = at(tag_begin + 2) == '-' || at(tag_begin + 2) == '+' ? at(tag_begin + 2) : '\0';
      const std::size_t name = skip_space(tag_begin + (sign == '\0' ? 2 : 3));
      if (!has(name, "endraw")) {
        continue;
      }
      const std::size_t end = skip_space(name + 6);
      if (ends_tag(end, "%}", true)) {
        add_data(tag_begin, sign, false);
        finish_tag(end, true);
        return {};
      }
    }
    return error(begin, "\"{% raw %}\" that does not end: add \"{% endraw %}\"");
  }

  Status tag(std::size_t begin, bool is_block) {
    const std::string_view symbol = is_block ? "%}" : "}}";
    std::string open_brackets;
    while (true) {
      position_ = skip_space(position_);
      if (position_ >= text_.size()) {
        return error(begin, fmt::format("a tag that does not end: add \"{}\"", symbol));
      }
      if (open_brackets.empty() && ends_tag(position_, symbol, is_block)) {
        add(is_block ? Token::Kind::kBlockEnd : Token::Kind::kVariableEnd, position_);
        finish_tag(position_, is_block);
        return {};
      }
      const char character = text_[position_];
      if (is_digit(character)) {
        LOCKSTEP_RETURN_IF_ERROR(number());
      } else if (character == '\'' || character == '"') {
        LOCKSTEP_RETURN_IF_ERROR(string(character));
      } else if (character == '_' || is_letter(first_code_point(text_.substr(position_)).value)) {
        name();
      } else {
        LOCKSTEP_RETURN_IF_ERROR(symbol_token(open_brackets));
      }
    }
  }

  void name() {
    const std::size_t start = position_;
    while (position_ < text_.size()) {
      const CodePoint point = first_code_point(text_.substr(position_));
      if (point.value != '_' && !is_letter(point.value) && !(point.value < 0x80 && is_digit(static_cast<char>(point.value)))) {
        break;
      }
      position_ += point.bytes;
    }
    add(Token::Kind::kName, start, text_.substr(start, position_ - start));
  }

  Status string(char quote) {
    const std::size_t start = position_;
    std::size_t end = start + 1;
    while (end < text_.size() && text_[end] != quote) {
      end += text_[end] == '\\' ? 2 : 1;
    }
    if (end >= text_.size()) {
      return error(start, "a string that does not end: add the closing quote");
    }
    auto value = unescape(text_.substr(start + 1, end - start - 1));
    if (!value) {
      return source_.error(start, value.error().code, value.error().message);
    }
    add(Token::Kind::kString, start, *value);
    position_ = end + 1;
    return {};
  }

  /// Digits with single underscores between them.
  std::string digits(bool (*is_valid)(char)) {
    std::string result;
    while (is_valid(at(position_)) || (at(position_) == '_' && !result.empty() && is_valid(at(position_ + 1)))) {
      if (text_[position_] != '_') {
        result += text_[position_];
      }
      ++position_;
    }
    return result;
  }

  Status number() {
    const std::size_t start = position_;
    static constexpr std::string_view kBases = "bBoOxX";
    if (const std::size_t base = kBases.find(at(start + 1)); at(start) == '0' && base != kNone && at(start + 1) != '\0') {
      position_ += 2;
      const std::string whole = digits(base < 2   ? [](char c) { return c == '0' || c == '1'; }
                                       : base < 4 ? [](char c) { return c >= '0' && c <= '7'; }
                                                  : [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); });
      return add_integer(start, whole, base < 2 ? 2 : base < 4 ? 8 : 16);
    }
    std::string spelled = digits(is_digit);
    bool is_whole = true;
    const bool after_dot = start > 0 && text_[start - 1] == '.';  // pair.0.1 is two subscripts
    if (!after_dot && at(position_) == '.' && is_digit(at(position_ + 1))) {
      ++position_;
      spelled.append(1, '.').append(digits(is_digit));
      is_whole = false;
    }
    const bool has_sign = at(position_ + 1) == '+' || at(position_ + 1) == '-';
    if ((at(position_) == 'e' || at(position_) == 'E') && is_digit(at(position_ + (has_sign ? 2 : 1)))) {
      spelled += 'e';
      spelled += at(position_ + 1) == '-' ? "-" : "";
      position_ += has_sign ? 2 : 1;
      spelled += digits(is_digit);
      is_whole = false;
    }
    if (is_whole) {
      const bool is_plain = spelled[0] != '0' || spelled.find_first_not_of('0') == std::string::npos;
      return is_plain ? add_integer(start, spelled, 10) : error(start, "an integer with a leading zero: write it without");
    }
    Token& token = add(Token::Kind::kNumber, start);
    std::from_chars(spelled.data(), spelled.data() + spelled.size(), token.number);
    return std::isfinite(token.number) ? Status() : error(start, "a number that is too large for a double");
  }

  Status add_integer(std::size_t start, const std::string& spelled, int base) {
    Token& token = add(Token::Kind::kInteger, start);
    const auto [end, code] = std::from_chars(spelled.data(), spelled.data() + spelled.size(), token.integer, base);
    if (spelled.empty() || code != std::errc() || end != spelled.data() + spelled.size()) {
      return source_.error(start, ErrorCode::kUnsupported, "an integer that is not a signed 64-bit one");
    }
    return {};
  }

  Status symbol_token(std::string& open_brackets) {
    static constexpr std::array<std::string_view, 25> kSymbols{"**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
                                                               ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ",", ":", ".", "|"};
    const auto* symbol = std::ranges::find_if(kSymbols, [this](std::string_view candidate) { return has(position_, candidate); });
    if (symbol == kSymbols.end()) {
      return error(position_, fmt::format("the character \"{}\" begins no token", text_.substr(position_, first_code_point(text_.substr(position_)).bytes)));
    }
    static constexpr std::string_view kOpen = "([{";
    static constexpr std::string_view kClose = ")]}";
    if (kOpen.find((*symbol)[0]) != kNone) {
      open_brackets += kClose[kOpen.find((*symbol)[0])];
    } else if (kClose.find((*symbol)[0]) != kNone) {
      if (open_brackets.empty() || open_brackets.back() != (*symbol)[0]) {
        return error(position_, fmt::format("\"{}\" closes nothing that is open here", *symbol));
      }
      open_brackets.pop_back();
    }
    add(Token::Kind::kOperator, position_, *symbol);
    position_ += symbol->size();
    return {};
  }

  const SourceText& source_;
  std::string_view text_;
  std::size_t position_ = 0;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize(const SourceText& source) {
  return Lexer(source).run();
}

}  // namespace lockstep::model::chat
