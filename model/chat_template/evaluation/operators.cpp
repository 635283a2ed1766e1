#include "model/chat_template/evaluation/operators.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/builtins/formatting.hpp"
#include "model/chat_template/values/compare.hpp"
#include "model/chat_template/values/to_text.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

constexpr std::array<std::string_view, 7> kSymbols{"+", "-", "*", "/", "//", "%", "**"};

Error beyond() {
  return failure("an integer beyond 64 bits");
}

Error mismatch(BinaryOperator op, const Value& left, const Value& right) {
  for (const Value* value : {&left, &right}) {
    if (const auto* undefined = value->get<Undefined>()) {
      return failure(*undefined->reason);
    }
  }
  return failure(fmt::format("'{}' of a {} and a {}", kSymbols[static_cast<std::size_t>(op)], type_name(left), type_name(right)));
}

Result<Value> whole_power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    return base == 0 ? Result<Value>(failure("0 to a negative power")) : Value::number(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  std::int64_t result = 1;
  for (std::int64_t i = 0; i < exponent && result != 0; ++i) {
    if (base == 1 || (base == -1 && i % 2 == exponent % 2)) {
      break;  // stays what it is
    }
    if (base != -1 && __builtin_mul_overflow(result, base, &result)) {
      return beyond();
    }
    result = base == -1 ? -result : result;
    if (base == -1) {
      break;  // odd exponent, one change of sign
    }
  }
  return Value::integer(result);
}

Result<Value> of_wholes(BinaryOperator op, std::int64_t left, std::int64_t right) {
  std::int64_t result = 0;
  switch (op) {
    case BinaryOperator::kAdd:
      return __builtin_add_overflow(left, right, &result) ? Result<Value>(beyond()) : Value::integer(result);
    case BinaryOperator::kSubtract:
      return __builtin_sub_overflow(left, right, &result) ? Result<Value>(beyond()) : Value::integer(result);
    case BinaryOperator::kMultiply:
      return __builtin_mul_overflow(left, right, &result) ? Result<Value>(beyond()) : Value::integer(result);
    case BinaryOperator::kPower:
      return whole_power(left, right);
    default:
      break;
  }
  if (right == 0) {
    return failure("division by zero");
  }
  if (op == BinaryOperator::kDivide) {
    return Value::number(static_cast<double>(left) / static_cast<double>(right));
  }
  if (right == -1) {  // the one quotient that does not fit, and whose remainder traps
    return op == BinaryOperator::kModulo ? Value::integer(0) : of_wholes(BinaryOperator::kSubtract, 0, left);
  }
  const std::int64_t quotient = left / right;
  const std::int64_t remainder = left % right;
  const bool adjusts = remainder != 0 && (remainder < 0) != (right < 0);  // towards minus infinity, as Python divides
  return Value::integer(op == BinaryOperator::kFloorDivide ? quotient - (adjusts ? 1 : 0) : remainder + (adjusts ? right : 0));
}

Result<Value> of_numbers(BinaryOperator op, double left, double right) {
  switch (op) {
    case BinaryOperator::kAdd:
      return Value::number(left + right);
    case BinaryOperator::kSubtract:
      return Value::number(left - right);
    case BinaryOperator::kMultiply:
      return Value::number(left * right);
    case BinaryOperator::kPower: {
      const double power = std::pow(left, right);
      const bool finite_input = std::isfinite(left) && std::isfinite(right);
      if ((left == 0 && right < 0) || (finite_input && !std::isfinite(power))) {
        return failure("a power that is no real number, or too large");
      }
      return Value::number(power);
    }
    default:
      break;
  }
  if (right == 0) {
    return failure("division by zero");
  }
  if (op == BinaryOperator::kDivide) {
    return Value::number(left / right);
  }
  double remainder = std::fmod(left, right);
  double quotient = (left - remainder) / right;
  if (remainder != 0 && (remainder < 0) != (right < 0)) {
    remainder += right;
    quotient -= 1;
  }
  if (op == BinaryOperator::kModulo) {
    return Value::number(remainder != 0 ? remainder : std::copysign(0.0, right));
  }
  const double floored = quotient != 0 ? std::floor(quotient) : std::copysign(0.0, left / right);
  return Value::number(quotient - floored > 0.5 ? floored + 1 : floored);
}

Result<Value> repeat(Runtime& runtime, const Value& value, std::int64_t count) {
  const std::size_t times = count < 0 ? 0 : static_cast<std::size_t>(count);
  if (value.is_text()) {
    const std::string_view text = value.as_text();
    if (!text.empty() && times > kTextBytesMax / text.size()) {
      return failure("a repeated text of more than 16 MiB");
    }
    std::string result;
    for (std::size_t i = 0; !text.empty() && i < times; ++i) {
      result += text;
    }
    return new_text(runtime, std::move(result), value.is_markup());
  }
  const std::vector<Value>& items = value.sequence()->items;
  if (!items.empty() && times > kTextBytesMax / sizeof(Value) / items.size()) {
    return failure("a repeated list of more than 16 MiB");
  }
  std::vector<Value> result;
  for (std::size_t i = 0; !items.empty() && i < times; ++i) {
    result.insert(result.end(), items.begin(), items.end());
  }
  return make_sequence(runtime.budget, value.sequence()->flavor, std::move(result));
}

bool is_list_or_tuple(const Value& value) {
  const Sequence* sequence = value.sequence();
  return sequence != nullptr && (sequence->flavor == Sequence::Flavor::kList || sequence->flavor == Sequence::Flavor::kTuple);
}

Result<Value> add_texts(Runtime& runtime, const Value& left, const Value& right) {
  const bool markup = left.is_markup() || right.is_markup();
  const auto part = [markup](const Value& value) { return markup && !value.is_markup() ? escape_html(value.as_text()) : std::string(value.as_text()); };
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(left.as_text().size() + right.as_text().size()));
  return Value::text(part(left) + part(right), markup);
}

Result<Value> of_containers(Runtime& runtime, BinaryOperator op, const Value& left, const Value& right) {
  if (op == BinaryOperator::kAdd && left.is_text() && right.is_text()) {
    return add_texts(runtime, left, right);
  }
  if (op == BinaryOperator::kAdd && is_list_or_tuple(left) && is_list_or_tuple(right) && left.sequence()->flavor == right.sequence()->flavor) {
    std::vector<Value> items = left.sequence()->items;
    items.insert(items.end(), right.sequence()->items.begin(), right.sequence()->items.end());
    return make_sequence(runtime.budget, left.sequence()->flavor, std::move(items));
  }
  if (op == BinaryOperator::kMultiply) {
    const bool left_repeats = left.is_text() || is_list_or_tuple(left);
    const bool right_repeats = right.is_text() || is_list_or_tuple(right);
    if (left_repeats && right.whole().has) {
      return repeat(runtime, left, right.whole().value);
    }
    if (right_repeats && left.whole().has) {
      return repeat(runtime, right, left.whole().value);
    }
  }
  if (op == BinaryOperator::kModulo && left.is_text()) {
    if (left.is_markup()) {
      return failure("'%' of a text that 'safe' marked is outside the supported subset");
    }
    LOCKSTEP_ASSIGN_OR_RETURN(std::string text, percent_format(runtime, left.as_text(), right));
    return new_text(runtime, std::move(text));
  }
  return mismatch(op, left, right);
}

}  // namespace

Result<Value> apply_binary(Runtime& runtime, BinaryOperator op, const Value& left, const Value& right) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step());
  const auto [left_whole, left_value] = left.whole();
  const auto [right_whole, right_value] = right.whole();
  if (left_whole && right_whole) {
    return of_wholes(op, left_value, right_value);
  }
  const double* left_number = left.get<double>();
  const double* right_number = right.get<double>();
  if ((left_whole || left_number != nullptr) && (right_whole || right_number != nullptr)) {
    return of_numbers(op, left_whole ? static_cast<double>(left_value) : *left_number, right_whole ? static_cast<double>(right_value) : *right_number);
  }
  return of_containers(runtime, op, left, right);
}

Result<bool> apply_compare(Runtime& runtime, CompareOperator op, const Value& left, const Value& right) {
  if (op == CompareOperator::kEqual || op == CompareOperator::kNotEqual) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool same, equal(runtime.budget, left, right));
    return same == (op == CompareOperator::kEqual);
  }
  if (op == CompareOperator::kIn || op == CompareOperator::kNotIn) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool found, contains(runtime.budget, right, left));
    return found == (op == CompareOperator::kIn);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const Order order, order_of(runtime.budget, left, right));
  switch (op) {
    case CompareOperator::kLess:
      return order == Order::kLess;
    case CompareOperator::kLessEqual:
      return order == Order::kLess || order == Order::kEqual;
    case CompareOperator::kGreater:
      return order == Order::kGreater;
    default:
      return order == Order::kGreater || order == Order::kEqual;
  }
}

Result<Value> negate(const Value& value, bool minus) {
  if (const double* number = value.get<double>()) {
    return Value::number(minus ? -*number : *number);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t whole, whole_of(value, "what a sign stands before"));
  return minus ? of_wholes(BinaryOperator::kSubtract, 0, whole) : Value::integer(whole);
}

Result<Value> slice(Runtime& runtime, const Value& value, const Value& start_value, const Value& stop_value, const Value& step_value) {
  const Sequence* sequence = value.sequence();
  if (const auto* undefined = value.get<Undefined>()) {
    return failure(*undefined->reason);
  }
  if (!value.is_text() && (sequence == nullptr || !sequence->indexable())) {
    return failure(fmt::format("a {} has no slices", type_name(value)));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t size, length_of(value));
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(value.is_text() ? value.as_text().size() / 64 : 0));
  const auto number = [](const Value& given, std::int64_t fallback) {
    return given.is_none() ? Result<std::int64_t>(fallback) : whole_of(given, "a slice's end");
  };
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t step, number(step_value, 1));
  if (step == 0) {
    return failure("a slice with a step of 0");
  }
  const std::int64_t lowest = step > 0 ? 0 : -1;
  const std::int64_t highest = step > 0 ? size : size - 1;
  const auto place = [&](std::int64_t index) { return std::clamp(index < 0 ? index + size : index, lowest, highest); };
  LOCKSTEP_ASSIGN_OR_RETURN(std::int64_t start, number(start_value, 0));
  LOCKSTEP_ASSIGN_OR_RETURN(std::int64_t stop, number(stop_value, 0));
  start = start_value.is_none() ? (step > 0 ? 0 : size - 1) : place(start);
  stop = stop_value.is_none() ? (step > 0 ? size : -1) : place(stop);
  const std::int64_t span = step > 0 ? stop - start : start - stop;
  const std::int64_t magnitude = step > 0 ? step : step == std::numeric_limits<std::int64_t>::min() ? std::numeric_limits<std::int64_t>::max() : -step;
  const std::int64_t count = span <= 0 ? 0 : (span - 1) / magnitude + 1;
  if (value.is_text()) {
    if (step == 1) {
      const std::string_view text = value.as_text();
      const std::size_t first = byte_offset(text, static_cast<std::size_t>(start));
      const std::string_view rest = text.substr(first);
      return new_text(runtime, std::string(rest.substr(0, byte_offset(rest, static_cast<std::size_t>(count)))), value.is_markup());
    }
    const std::vector<std::string_view> points = split_code_points(value.as_text());
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(points.size()));
    std::string result;
    for (std::int64_t i = 0; i < count; ++i) {
      result += points[static_cast<std::size_t>(start + i * step)];
    }
    return new_text(runtime, std::move(result), value.is_markup());
  }
  std::vector<Value> items;
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(static_cast<std::size_t>(count) * sizeof(Value)));
  for (std::int64_t i = 0; i < count; ++i) {
    items.push_back(sequence->items[static_cast<std::size_t>(start + i * step)]);
  }
  return make_sequence(runtime.budget, sequence->flavor == Sequence::Flavor::kRange ? Sequence::Flavor::kTuple : sequence->flavor, std::move(items));
}

}  // namespace lockstep::model::chat
