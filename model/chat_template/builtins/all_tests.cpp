// Tests: what stands behind "is".
#include <algorithm>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/evaluation/operators.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

template <bool (*kHolds)(const Value&)>
Result<Value> check(Runtime& /*runtime*/, const Value& self, const Bound& /*bound*/) {
  return Value::boolean(kHolds(self));
}

bool is_defined(const Value& value) {
  return !value.is_undefined();
}
bool is_undefined(const Value& value) {
  return value.is_undefined();
}
bool is_none(const Value& value) {
  return value.is_none();
}
bool is_boolean(const Value& value) {
  return value.is<bool>();
}
template <bool kWanted>
bool is_exactly(const Value& value) {
  return value.is<bool>() && *value.get<bool>() == kWanted;
}
bool is_integer(const Value& value) {
  return value.is<std::int64_t>();
}
bool is_float(const Value& value) {
  return value.is<double>();
}
bool is_number(const Value& value) {
  return value.is<double>() || value.whole().has;
}
bool is_string(const Value& value) {
  return value.is_text();
}
bool is_mapping(const Value& value) {
  return value.dict() != nullptr;
}
/// Has a length and subscripts, in the reference's loose sense: texts, dicts and undefined values do.
bool is_sequence(const Value& value) {
  return value.is_text() || value.is_undefined() || value.dict() != nullptr || (value.sequence() != nullptr && value.sequence()->indexable());
}
bool is_iterable(const Value& value) {
  return value.is_text() || value.is_undefined() || value.dict() != nullptr || value.sequence() != nullptr || value.is<LoopState*>();
}
bool is_callable(const Value& value) {
  return value.is<MacroRef>() || value.is<std::shared_ptr<const BoundMethod>>() || value.is<const Builtin*>() || value.is_undefined();
}
bool is_escaped(const Value& value) {
  return value.is_markup();
}

template <CompareOperator kOperator>
Result<Value> compare(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const bool holds, apply_compare(runtime, kOperator, self, *bound[0]));
  return Value::boolean(holds);
}

Result<Value> sameas(Runtime& runtime, const Value& self, const Bound& bound) {
  const Value& other = *bound[0];
  if ((self.is_none() || self.is<bool>()) && self.data().index() == other.data().index()) {
    return compare<CompareOperator::kEqual>(runtime, self, bound);
  }
  if (self.data().index() != other.data().index()) {
    return Value::boolean(false);
  }
  return failure("'sameas' is supported for none, true and false");
}

Result<Value> remainder_is(Runtime& runtime, const Value& self, const Value& divisor, std::int64_t wanted) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Value remainder, apply_binary(runtime, BinaryOperator::kModulo, self, divisor));
  LOCKSTEP_ASSIGN_OR_RETURN(const bool holds, apply_compare(runtime, CompareOperator::kEqual, remainder, Value::integer(wanted)));
  return Value::boolean(holds);
}

template <std::int64_t kWanted>
Result<Value> parity(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  return remainder_is(runtime, self, Value::integer(2), kWanted);
}

Result<Value> divisibleby(Runtime& runtime, const Value& self, const Bound& bound) {
  return remainder_is(runtime, self, *bound[0], 0);
}

/// str(value).isupper() and islower().
template <bool kUpper>
Result<Value> in_case(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Value text, soft_text(runtime, self));
  return invoke(runtime, *find_method(text, kUpper ? "isupper" : "islower"), text, {});
}

template <const Builtin* (*kFind)(std::string_view)>
Result<Value> is_known(Runtime& /*runtime*/, const Value& self, const Bound& /*bound*/) {
  return Value::boolean(self.is_text() && kFind(self.as_text()) != nullptr);
}

constexpr std::array kTests{
    Builtin{.name = "defined", .call = check<is_defined>},
    Builtin{.name = "undefined", .call = check<is_undefined>},
    Builtin{.name = "none", .call = check<is_none>},
    Builtin{.name = "boolean", .call = check<is_boolean>},
    Builtin{.name = "true", .call = check<is_exactly<true>>},
    Builtin{.name = "false", .call = check<is_exactly<false>>},
    Builtin{.name = "integer", .call = check<is_integer>},
    Builtin{.name = "float", .call = check<is_float>},
    Builtin{.name = "number", .call = check<is_number>},
    Builtin{.name = "string", .call = check<is_string>},
    Builtin{.name = "mapping", .call = check<is_mapping>},
    Builtin{.name = "sequence", .call = check<is_sequence>},
    Builtin{.name = "iterable", .call = check<is_iterable>},
    Builtin{.name = "callable", .call = check<is_callable>},
    Builtin{.name = "escaped", .call = check<is_escaped>},
    Builtin{.name = "upper", .call = in_case<true>},
    Builtin{.name = "lower", .call = in_case<false>},
    Builtin{.name = "odd", .call = parity<1>},
    Builtin{.name = "even", .call = parity<0>},
    Builtin{.name = "divisibleby", .parameters = "num", .required = 1, .call = divisibleby},
    Builtin{.name = "sameas", .parameters = "other", .required = 1, .call = sameas},
    Builtin{.name = "filter", .call = is_known<find_filter>},
    Builtin{.name = "test", .call = is_known<find_test>},
    Builtin{.name = "in", .parameters = "seq", .required = 1, .call = compare<CompareOperator::kIn>},
    Builtin{.name = "eq", .parameters = "other", .required = 1, .call = compare<CompareOperator::kEqual>},
    Builtin{.name = "==", .parameters = "other", .required = 1, .call = compare<CompareOperator::kEqual>},
    Builtin{.name = "equalto", .parameters = "other", .required = 1, .call = compare<CompareOperator::kEqual>},
    Builtin{.name = "ne", .parameters = "other", .required = 1, .call = compare<CompareOperator::kNotEqual>},
    Builtin{.name = "!=", .parameters = "other", .required = 1, .call = compare<CompareOperator::kNotEqual>},
    Builtin{.name = "lt", .parameters = "other", .required = 1, .call = compare<CompareOperator::kLess>},
    Builtin{.name = "<", .parameters = "other", .required = 1, .call = compare<CompareOperator::kLess>},
    Builtin{.name = "lessthan", .parameters = "other", .required = 1, .call = compare<CompareOperator::kLess>},
    Builtin{.name = "le", .parameters = "other", .required = 1, .call = compare<CompareOperator::kLessEqual>},
    Builtin{.name = "<=", .parameters = "other", .required = 1, .call = compare<CompareOperator::kLessEqual>},
    Builtin{.name = "gt", .parameters = "other", .required = 1, .call = compare<CompareOperator::kGreater>},
    Builtin{.name = ">", .parameters = "other", .required = 1, .call = compare<CompareOperator::kGreater>},
    Builtin{.name = "greaterthan", .parameters = "other", .required = 1, .call = compare<CompareOperator::kGreater>},
    Builtin{.name = "ge", .parameters = "other", .required = 1, .call = compare<CompareOperator::kGreaterEqual>},
    Builtin{.name = ">=", .parameters = "other", .required = 1, .call = compare<CompareOperator::kGreaterEqual>},
};

}  // namespace

std::span<const Builtin> all_tests() {
  return kTests;
}

}  // namespace lockstep::model::chat
