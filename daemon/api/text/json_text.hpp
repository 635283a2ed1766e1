// JSON written straight into a string: what every token of every stream costs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace lockstep::daemon {

/// Appends `text`, which is UTF-8, as a JSON string with its quotes.
void append_json_string(std::string& out, std::string_view text);
/// Appends a number; one that JSON has no form for (-infinity) as -9999, as OpenAI does. None: null.
void append_json_number(std::string& out, std::optional<float> number);

}  // namespace lockstep::daemon
