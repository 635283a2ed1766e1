// Typed access to a builtin's arguments, and what builtins share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"
#include "model/chat_template/builtins/builtin.hpp"
#include "model/chat_template/values/value.hpp"

namespace lockstep::model::chat {

/// Errors of all: kInvalidArgument, naming `what` and the type found.
[[nodiscard]] Result<std::string_view> text_of(const Value& value, std::string_view what);
[[nodiscard]] Result<std::int64_t> whole_of(const Value& value, std::string_view what);
/// What a `for` would go through: elements, keys of a dict, characters of a text; a generator is used up. Undefined has none.
[[nodiscard]] Result<std::vector<Value>> elements_of(Runtime& runtime, const Value& value);
/// len(). Errors  kInvalidArgument: a value without a length.
[[nodiscard]] Result<std::int64_t> length_of(const Value& value);

/// True where the argument was given and is true.
[[nodiscard]] bool flag_of(const Value* argument, bool fallback = false);
/// A new text, charged.
[[nodiscard]] Result<Value> new_text(Runtime& runtime, std::string text, bool markup = false);
/// str() of any value; of a text without a copy.
[[nodiscard]] Result<Value> soft_text(Runtime& runtime, const Value& value);

/// obj.name and obj[key], as expressions and `map(attribute=...)` look them up.
[[nodiscard]] Result<Value> get_attribute(Runtime& runtime, const Value& value, std::string_view name);
[[nodiscard]] Result<Value> get_item(Runtime& runtime, const Value& value, const Value& key);
/// "a.b.0" or an integer, through get_item; `fallback` replaces undefined parts where given.
[[nodiscard]] Result<Value> get_path(Runtime& runtime, const Value& value, const Value& path, const Value* fallback = nullptr);

}  // namespace lockstep::model::chat
