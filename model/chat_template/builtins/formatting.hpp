// '%' formatting and str.format.
#pragma once

#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"
#include "model/chat_template/builtins/builtin.hpp"

namespace lockstep::model::chat {

/// `format % values`: s, r, d, i, f, x, X, o, c, e, g and %%, with flags, width, precision and (key).
/// Errors  kInvalidArgument: too few or too many values, a value of the wrong type, a conversion outside the subset.
[[nodiscard]] Result<std::string> percent_format(Runtime& runtime, std::string_view format, const Value& values);
/// `format.format(...)`: {}, {0}, {name} and doubled braces; conversions and format specifications are outside the subset.
[[nodiscard]] Result<std::string> brace_format(Runtime& runtime, std::string_view format, const Arguments& arguments);

}  // namespace lockstep::model::chat
