// Filters that make numbers.
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

/// Digits of Python's int() and float(): blanks around, a sign, single underscores between digits.
std::optional<std::string> plain_digits(std::string_view text) {
  text = strip_right(strip_left(text));
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto is_alphanumeric = [&](std::size_t place) { return place < text.size() && std::isalnum(static_cast<unsigned char>(text[place])) != 0; };
    if (text[i] == '_') {
      if (i == 0 || !is_alphanumeric(i - 1) || !is_alphanumeric(i + 1)) {
        return std::nullopt;
      }
    } else {
      result += text[i];
    }
  }
  if (result.starts_with('+')) {
    result.erase(0, 1);
    if (result.starts_with('-')) {
      return std::nullopt;
    }
  }
  return result.empty() ? std::nullopt : std::optional<std::string>(result);
}

Result<std::optional<std::int64_t>> parse_whole(std::string_view text, int base) {
  std::optional<std::string> digits = plain_digits(text);
  if (!digits) {
    return std::optional<std::int64_t>();
  }
  const std::size_t sign = digits->starts_with('-') ? 1 : 0;
  if (base == 16 && (digits->substr(sign).starts_with("0x") || digits->substr(sign).starts_with("0X"))) {
    digits->erase(sign, 2);
  }
  std::int64_t value = 0;
  const auto [end, code] = std::from_chars(digits->data(), digits->data() + digits->size(), value, base);
  if (code == std::errc::result_out_of_range) {
    return failure("'int' of a number beyond 64 bits");
  }
  return code == std::errc() && end == digits->data() + digits->size() ? std::optional<std::int64_t>(value) : std::nullopt;
}

std::optional<double> parse_number(std::string_view text) {
  const std::optional<std::string> digits = plain_digits(text);
  double value = 0;
  if (!digits) {
    return std::nullopt;
  }
  const auto [end, code] = std::from_chars(digits->data(), digits->data() + digits->size(), value);
  if (end != digits->data() + digits->size() || (code != std::errc() && code != std::errc::result_out_of_range)) {
    return std::nullopt;
  }
  if (code == std::errc::result_out_of_range) {
    value = std::strtod(digits->c_str(), nullptr);  // infinity, or the nearest to zero, as Python reads it
  }
  return value;
}

/// int() of a float: nothing where it has no integer.
Result<std::optional<std::int64_t>> truncate(double number) {
  if (!std::isfinite(number)) {
    return std::optional<std::int64_t>();
  }
  if (std::abs(number) >= 9.2e18) {
    return failure("'int' of a number beyond 64 bits");
  }
  return std::optional<std::int64_t>(static_cast<std::int64_t>(number));
}

Result<Value> to_int(Runtime& /*runtime*/, const Value& self, const Bound& bound) {
  std::int64_t base = 10;
  if (bound[1] != nullptr) {
    LOCKSTEP_ASSIGN_OR_RETURN(base, whole_of(*bound[1], "the base of 'int'"));
  }
  if (base != 10 && base != 16 && base != 8 && base != 2) {
    return failure("the base of 'int' is none of 2, 8, 10, 16");
  }
  const Value fallback = bound[0] != nullptr ? *bound[0] : Value::integer(0);
  if (const auto* undefined = self.get<Undefined>()) {
    return failure(*undefined->reason);
  }
  std::optional<std::int64_t> result;
  if (self.is_text()) {
    LOCKSTEP_ASSIGN_OR_RETURN(result, parse_whole(self.as_text(), static_cast<int>(base)));
    if (const std::optional<double> number = result ? std::nullopt : parse_number(self.as_text())) {
      LOCKSTEP_ASSIGN_OR_RETURN(result, truncate(*number));
    }
  } else if (const auto [has, whole] = self.whole(); has) {
    result = whole;
  } else if (const double* number = self.get<double>()) {
    LOCKSTEP_ASSIGN_OR_RETURN(result, truncate(*number));
    if (!result && std::isinf(*number)) {
      return failure("'int' of infinity");  // the reference, too, has a default for not-a-number only
    }
  }
  return result ? Value::integer(*result) : fallback;
}

Result<Value> to_float(Runtime& /*runtime*/, const Value& self, const Bound& bound) {
  if (const auto* undefined = self.get<Undefined>()) {
    return failure(*undefined->reason);
  }
  std::optional<double> result;
  if (self.is_text()) {
    result = parse_number(self.as_text());
  } else if (const auto [has, whole] = self.whole(); has) {
    result = static_cast<double>(whole);
  } else if (const double* number = self.get<double>()) {
    result = *number;
  }
  return result ? Value::number(*result) : bound[0] != nullptr ? *bound[0] : Value::number(0);
}

Result<Value> absolute(Runtime& /*runtime*/, const Value& self, const Bound& /*bound*/) {
  if (const double* number = self.get<double>()) {
    return Value::number(std::abs(*number));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t whole, whole_of(self, "what 'abs' is applied to"));
  if (whole == std::numeric_limits<std::int64_t>::min()) {
    return failure("'abs' gives a number beyond 64 bits");
  }
  return Value::integer(whole < 0 ? -whole : whole);
}

/// The nearest decimal with that many digits, ties to even as they are in binary: what printing with so many digits gives.
double round_to(double number, int digits) {
  return std::strtod(fmt::format("{:.{}f}", number, digits).c_str(), nullptr);
}

Result<Value> round(Runtime& /*runtime*/, const Value& self, const Bound& bound) {
  std::int64_t precision = 0;
  if (bound[0] != nullptr) {
    LOCKSTEP_ASSIGN_OR_RETURN(precision, whole_of(*bound[0], "the precision of 'round'"));
  }
  const std::string_view method = bound[1] == nullptr ? "common" : bound[1]->is_text() ? bound[1]->as_text() : "";
  const auto [has, whole] = self.whole();
  const double* number = self.get<double>();
  if (precision < 0 || precision > 15 || (method != "common" && method != "ceil" && method != "floor") || (!has && number == nullptr)) {
    return failure("'round' needs a number, a precision of 0 to 15, and a method of common, ceil or floor");
  }
  if (method == "common") {
    return has ? Value::integer(whole) : std::isfinite(*number) ? Value::number(round_to(*number, static_cast<int>(precision))) : self;
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = (has ? static_cast<double>(whole) : *number) * scale;
  return Value::number((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

constexpr std::array kFilters{
    Builtin{.name = "int", .parameters = "default,base", .call = to_int},
    Builtin{.name = "float", .parameters = "default", .call = to_float},
    Builtin{.name = "abs", .call = absolute},
    Builtin{.name = "round", .parameters = "precision,method", .call = round},
};

}  // namespace

std::span<const Builtin> number_filters() {
  return kFilters;
}

}  // namespace lockstep::model::chat
