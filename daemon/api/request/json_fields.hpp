// Readers of single JSON fields, each with its range, and the refusal of what cannot be honoured.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {

/// The answer to a request that is wrong; nothing where it is right.
using Failure = std::optional<ApiError>;

[[nodiscard]] ApiError bad_field(std::string_view field, std::string message);
/// "a string", "null", ...
[[nodiscard]] std::string_view kind_name(const boost::json::value& value);
[[nodiscard]] std::string_view text_of(const boost::json::value& string);

/// The body as a JSON object. Nesting is bounded, without recursion.
[[nodiscard]] Failure parse_object(std::string_view body, boost::json::object& result);
/// The field's value; null where it is absent or JSON's null, which asks for nothing.
[[nodiscard]] const boost::json::value* find_field(const boost::json::object& object, std::string_view name);

/// A number's digits, or kind_name: never a client's text.
[[nodiscard]] std::string described(const boost::json::value& value);
/// 2, and 2.0 too: some clients know no other numbers. Nothing for 2.5, for what is no number, for integers that
/// int64 does not hold, and for doubles from 2^53 on, as each of them stands for several integers.
[[nodiscard]] std::optional<std::int64_t> whole_number(const boost::json::value& value);
/// A whole number within [low, high].
[[nodiscard]] Failure read_integer(std::string_view field, const boost::json::value& value, std::int64_t low, std::int64_t high, std::int64_t& result);
[[nodiscard]] Failure read_integer(std::string_view field, const boost::json::value& value, std::int32_t low, std::int32_t high, std::int32_t& result);
/// A finite number within [low, high], or (low, high] when `above_low`.
struct NumberRange {
  double low = 0.0;
  double high = 1.0;
  bool above_low = false;
};
[[nodiscard]] Failure read_number(std::string_view field, const boost::json::value& value, const NumberRange& range, float& result);
[[nodiscard]] Failure read_bool(std::string_view field, const boost::json::value& value, bool& result);
/// Ids from 0 to below `vocabulary_size`.
[[nodiscard]] Failure read_token_ids(std::string_view field, const boost::json::array& array, std::int32_t vocabulary_size, std::vector<std::int32_t>& result);

/// One field that other servers honour and this one cannot: accepted only where it asks for nothing. null always asks for nothing.
struct UnsupportedField {
  std::string_view name;
  bool (*neutral)(const boost::json::value& value);
  std::string_view accepted;  ///< in words
};
[[nodiscard]] Failure refuse_unsupported(const boost::json::object& object, std::span<const UnsupportedField> fields);
[[nodiscard]] bool is_one(const boost::json::value& value);
[[nodiscard]] bool is_zero(const boost::json::value& value);
[[nodiscard]] bool is_false(const boost::json::value& value);
[[nodiscard]] bool is_true(const boost::json::value& value);
/// {"type": "text"}.
[[nodiscard]] bool is_text_format(const boost::json::value& value);
[[nodiscard]] bool is_object(const boost::json::value& value);
/// "", [] or {}.
[[nodiscard]] bool is_empty(const boost::json::value& value);
[[nodiscard]] bool is_never_neutral(const boost::json::value& value);

}  // namespace lockstep::daemon
