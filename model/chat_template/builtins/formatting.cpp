#include "model/chat_template/builtins/formatting.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/values/to_text.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

constexpr std::size_t kWidthMax = 4096;

/// One conversion of a '%' format.
struct Conversion {
  bool left = false;
  bool zeros = false;
  bool plus = false;
  bool space = false;
  std::size_t width = 0;
  std::size_t precision = std::string::npos;
  char letter = 0;
};

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, std::string_view format, const Value& values) : runtime_(runtime), rest_(format), values_(values) {
    const Sequence* tuple = values.sequence();
    is_tuple_ = tuple != nullptr && tuple->flavor == Sequence::Flavor::kTuple;
  }

  Result<std::string> run() {
    std::string result;
    while (!rest_.empty()) {
      const std::size_t percent = rest_.find('%');
      result += rest_.substr(0, percent);
      rest_ = percent == std::string_view::npos ? std::string_view() : rest_.substr(percent + 1);
      if (percent == std::string_view::npos) {
        break;
      }
      LOCKSTEP_ASSIGN_OR_RETURN(const std::string piece, conversion());
      result += piece;
      LOCKSTEP_RETURN_IF_ERROR(runtime_.budget.allocate(result.size() > kTextBytesMax ? result.size() : piece.size()));
    }
    const bool all_used = is_tuple_ ? next_ == values_.sequence()->items.size() : next_ == 1 || by_key_ || values_.dict() != nullptr || values_.is_undefined();
    if (!all_used && !(values_.sequence() != nullptr && values_.sequence()->indexable() && !is_tuple_ && next_ == 0)) {
      return failure("'%' has more values than its format takes");
    }
    return result;
  }

 private:
  std::size_t digits() {
    std::size_t value = 0;
    while (!rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9') {
      value = std::min(value * 10 + static_cast<std::size_t>(rest_[0] - '0'), kWidthMax + 1);
      rest_.remove_prefix(1);
    }
    return value;
  }

  Result<Value> next_value() {
    if (is_tuple_) {
      const auto& items = values_.sequence()->items;
      if (next_ < items.size()) {
        return items[next_++];
      }
    } else if (next_++ == 0) {
      return values_;
    }
    return failure("'%' has fewer values than its format takes");
  }

  Result<std::string> conversion() {
    Value value;
    bool has_value = false;
    if (rest_.starts_with('(')) {
      const std::size_t close = rest_.find(')');
      const Dict* dict = values_.dict();
      const Value* found = dict == nullptr || close == std::string_view::npos ? nullptr : dict->find_text(rest_.substr(1, close - 1));
      if (found == nullptr) {
        return failure("'%(name)' needs a dict that has the name");
      }
      value = *found;
      has_value = true;
      by_key_ = true;
      rest_ = rest_.substr(close + 1);
    }
    Conversion how;
    for (; !rest_.empty() && std::string_view("-0+ #").find(rest_[0]) != std::string_view::npos; rest_.remove_prefix(1)) {
      how.left |= rest_[0] == '-';
      how.zeros |= rest_[0] == '0';
      how.plus |= rest_[0] == '+';
      how.space |= rest_[0] == ' ';
      if (rest_[0] == '#') {
        return failure("the flag '#' of a '%' format is outside the supported subset");
      }
    }
    how.width = digits();
    if (rest_.starts_with('.')) {
      rest_.remove_prefix(1);
      how.precision = digits();
    }
    if (rest_.empty()) {
      return failure("a '%' format ends within a conversion");
    }
    if (how.width > kWidthMax || (how.precision != std::string::npos && how.precision > kWidthMax)) {
      return failure(fmt::format("a width or precision of a '%' format is larger than {}", kWidthMax));
    }
    how.letter = rest_[0];
    rest_.remove_prefix(1);
    if (how.letter == '%') {
      return std::string("%");
    }
    if (!has_value) {
      LOCKSTEP_ASSIGN_OR_RETURN(value, next_value());
    }
    return convert(how, value);
  }

  Result<std::string> convert(const Conversion& how, const Value& value) {
    std::string body;
    switch (how.letter) {
      case 's':
      case 'r': {
        LOCKSTEP_ASSIGN_OR_RETURN(body, how.letter == 's' ? to_text(runtime_.budget, value) : to_repr(runtime_.budget, value));
        body = body.substr(0, byte_offset(body, how.precision));
        return pad(how, body, false);
      }
      case 'd':
      case 'i':
      case 'x':
      case 'X':
      case 'o': {
        LOCKSTEP_ASSIGN_OR_RETURN(body, whole_text(how, value));
        return pad(how, body, true);
      }
      case 'f':
      case 'F':
      case 'e':
      case 'g': {
        LOCKSTEP_ASSIGN_OR_RETURN(body, number_text_of(how, value));
        return pad(how, body, true);
      }
      default:
        return failure(fmt::format("'%{}' is outside the supported subset: s, r, d, i, x, X, o, f, F, e, g", how.letter));
    }
  }

  static std::string sign_of(const Conversion& how, bool negative) { return negative ? "-" : how.plus ? "+" : how.space ? " " : ""; }

  static Result<std::string> whole_text(const Conversion& how, const Value& value) {
    const bool decimal = how.letter == 'd' || how.letter == 'i';
    std::int64_t number = value.whole().value;
    if (const double* floating = value.get<double>(); floating != nullptr && decimal && std::abs(*floating) < 9e18) {
      number = static_cast<std::int64_t>(*floating);
    } else if (!value.whole().has) {
      return failure(fmt::format("'%{}' needs a number, not a {}", how.letter, type_name(value)));
    }
    const std::uint64_t magnitude = number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
    std::string digits_text = decimal             ? fmt::format("{}", magnitude)
                              : how.letter == 'x' ? fmt::format("{:x}", magnitude)
                              : how.letter == 'X' ? fmt::format("{:X}", magnitude)
                                                  : fmt::format("{:o}", magnitude);
    if (how.precision != std::string::npos && digits_text.size() < how.precision) {
      digits_text.insert(0, how.precision - digits_text.size(), '0');
    }
    return sign_of(how, number < 0) + digits_text;
  }

  static Result<std::string> number_text_of(const Conversion& how, const Value& value) {
    const auto [whole, whole_value] = value.whole();
    const double* floating = value.get<double>();
    if (!whole && floating == nullptr) {
      return failure(fmt::format("'%{}' needs a number, not a {}", how.letter, type_name(value)));
    }
    const double number = whole ? static_cast<double>(whole_value) : *floating;
    const int precision = how.precision == std::string::npos ? 6 : static_cast<int>(how.precision);
    const double magnitude = std::abs(number);
    const std::string body = !std::isfinite(number) ? number_text(magnitude)
                             : how.letter == 'e'    ? fmt::format("{:.{}e}", magnitude, precision)
                             : how.letter == 'g'    ? fmt::format("{:.{}g}", magnitude, precision)
                                                    : fmt::format("{:.{}f}", magnitude, precision);
    return sign_of(how, std::signbit(number) && !std::isnan(number)) + body;
  }

  static std::string pad(const Conversion& how, const std::string& body, bool is_number) {
    const std::size_t length = count_code_points(body);
    if (length >= how.width) {
      return body;
    }
    const std::size_t missing = how.width - length;
    if (how.left) {
      return body + std::string(missing, ' ');
    }
    if (how.zeros && is_number) {
      const std::size_t sign = !body.empty() && (body[0] == '-' || body[0] == '+' || body[0] == ' ') ? 1 : 0;
      return body.substr(0, sign) + std::string(missing, '0') + body.substr(sign);
    }
    return std::string(missing, ' ') + body;
  }

  Runtime& runtime_;
  std::string_view rest_;
  const Value& values_;
  bool is_tuple_ = false;
  bool by_key_ = false;
  std::size_t next_ = 0;
};

const Value* named_argument(const Arguments& arguments, std::string_view name) {
  const auto place = std::ranges::find(arguments.named, name, [](const auto& pair) { return std::string_view(pair.first); });
  return place == arguments.named.end() ? nullptr : &place->second;
}

}  // namespace

Result<std::string> percent_format(Runtime& runtime, std::string_view format, const Value& values) {
  return PercentFormatter(runtime, format, values).run();
}

Result<std::string> brace_format(Runtime& runtime, std::string_view format, const Arguments& arguments) {
  std::string result;
  std::size_t automatic = 0;
  for (std::size_t i = 0; i < format.size(); ++i) {
    const char character = format[i];
    if (character != '{' && character != '}') {
      result += character;
      continue;
    }
    if (i + 1 < format.size() && format[i + 1] == character) {
      result += character;
      ++i;
      continue;
    }
    const std::size_t close = format.find('}', i);
    if (character == '}' || close == std::string_view::npos) {
      return failure("a single brace in the text of 'format': double it");
    }
    const std::string_view field = format.substr(i + 1, close - i - 1);
    if (field.find_first_of(":!.[{") != std::string_view::npos) {
      return failure(fmt::format("the field \"{{{}}}\" of 'format' is outside the supported subset: {{}}, {{0}}, {{name}}", field));
    }
    std::size_t place = automatic;
    const auto [end, code] = std::from_chars(field.data(), field.data() + field.size(), place);
    const bool is_place = field.empty() || (code == std::errc() && end == field.data() + field.size());
    const Value* value = is_place ? (place < arguments.positional.size() ? &arguments.positional[place] : nullptr) : named_argument(arguments, field);
    if (value == nullptr) {
      return failure(fmt::format("'format' has no value for the field \"{{{}}}\"", field));
    }
    automatic += field.empty() ? 1 : 0;
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string piece, to_text(runtime.budget, *value));
    result += piece;
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(result.size() > kTextBytesMax ? result.size() : 0));
    i = close;
  }
  return result;
}

}  // namespace lockstep::model::chat
