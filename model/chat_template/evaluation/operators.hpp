// Python's operators on values.
#pragma once

#include <optional>
#include <string>

#include "lockstep/core/result.hpp"
#include "model/chat_template/builtins/builtin.hpp"
#include "model/chat_template/values/value.hpp"

namespace lockstep::model::chat {

enum class BinaryOperator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class CompareOperator { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

/// Errors of all: kInvalidArgument: types that do not go together, division by zero, an integer beyond 64 bits, a result that is too large.
[[nodiscard]] Result<Value> apply_binary(Runtime& runtime, BinaryOperator op, const Value& left, const Value& right);
[[nodiscard]] Result<bool> apply_compare(Runtime& runtime, CompareOperator op, const Value& left, const Value& right);
[[nodiscard]] Result<Value> negate(const Value& value, bool minus);
/// value[start:stop:step], each of which may be none.
[[nodiscard]] Result<Value> slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop, const Value& step);

}  // namespace lockstep::model::chat
