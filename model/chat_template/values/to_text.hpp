// What Python's str(), repr() and json.dumps() give for a value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"
#include "model/chat_template/values/value.hpp"

namespace lockstep::model::chat {

/// The shortest text that reads back as the same double, as Python writes it: 1.0, 1e+16, nan.
[[nodiscard]] std::string number_text(double value);
/// str(): what printing a value gives. Errors  kInvalidArgument: a function, generator or loop, whose text would be an address; too large.
[[nodiscard]] Result<std::string> to_text(Budget& budget, const Value& value);
/// repr(): texts quoted and escaped.
[[nodiscard]] Result<std::string> to_repr(Budget& budget, const Value& value);

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;          ///< one level of it; nothing: all in one line
  std::optional<std::string> item_separator;  ///< ", ", or "," with an indent
  std::string key_separator = ": ";
  bool sort_keys = false;
};
/// json.dumps() as the reference library's tojson calls it: no HTML escapes.
/// Errors  kInvalidArgument: a value that JSON has not, such as an undefined one.
[[nodiscard]] Result<std::string> to_json(Budget& budget, const Value& value, const JsonStyle& style);

/// The five characters that HTML needs escaped, as the reference's Markup escapes them.
[[nodiscard]] std::string escape_html(std::string_view text);

}  // namespace lockstep::model::chat
