#include "daemon/api/request/json_fields.hpp"

#include <cmath>
#include <limits>

#include <boost/json.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

constexpr std::size_t kDepthMax = 32;  // a conversation needs 5; schemas of tools, which are refused by name, more

bool is_number(const json::value& value, double expected) {
  return (value.is_int64() && static_cast<double>(value.get_int64()) == expected) || (value.is_double() && value.get_double() == expected);
}

}  // namespace

ApiError bad_field(std::string_view field, std::string message) {
  return {.status = 400, .message = std::move(message), .code = "invalid_value", .param = std::string(field)};
}

std::string_view kind_name(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
  }
  return "something else";
}

std::string_view text_of(const json::value& string) {
  return {string.get_string().data(), string.get_string().size()};
}

Failure parse_object(std::string_view body, json::object& result) {
  json::parse_options options;
  options.max_depth = kDepthMax;
  boost::system::error_code error;
  json::parser parser({}, options);
  const std::size_t good_bytes = parser.write(body.data(), body.size(), error);
  if (error) {
    return ApiError{.status = 400,
                    .message = fmt::format("the body is not JSON in UTF-8: {} after byte {} of {}", error.message(), good_bytes, body.size()),
                    .code = "malformed_json"};
  }
  json::value root = parser.release();
  if (!root.is_object()) {
    return ApiError{.status = 400, .message = fmt::format("the body must be a JSON object, not {}", kind_name(root)), .code = "malformed_json"};
  }
  result = std::move(root.get_object());
  return {};
}

const json::value* find_field(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(json::string_view(name.data(), name.size()));
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::string described(const json::value& value) {
  if (value.is_int64()) {
    return fmt::to_string(value.get_int64());
  }
  if (value.is_uint64()) {
    return fmt::to_string(value.get_uint64());
  }
  return value.is_double() ? fmt::to_string(value.get_double()) : std::string(kind_name(value));
}

std::optional<std::int64_t> whole_number(const json::value& value) {
  if (value.is_int64()) {
    return value.get_int64();
  }
  constexpr double kExact = 0x1p53;  // from here on a double stands for several integers: -2^63 - 1 would come as -2^63
  if (value.is_double() && std::abs(value.get_double()) < kExact && std::trunc(value.get_double()) == value.get_double()) {
    return static_cast<std::int64_t>(value.get_double());
  }
  return std::nullopt;
}

Failure read_integer(std::string_view field, const json::value& value, std::int64_t low, std::int64_t high, std::int64_t& result) {
  if (const auto number = whole_number(value); number && *number >= low && *number <= high) {
    result = *number;
    return {};
  }
  return bad_field(field, fmt::format("{} must be an integer from {} to {}, not {}", field, low, high, described(value)));
}

Failure read_integer(std::string_view field, const json::value& value, std::int32_t low, std::int32_t high, std::int32_t& result) {
  std::int64_t number = 0;
  if (Failure failure = read_integer(field, value, std::int64_t{low}, std::int64_t{high}, number)) {
    return failure;
  }
  result = static_cast<std::int32_t>(number);
  return {};
}

Failure read_number(std::string_view field, const json::value& value, const NumberRange& range, float& result) {
  double number = std::numeric_limits<double>::quiet_NaN();
  if (value.is_int64()) {
    number = static_cast<double>(value.get_int64());
  } else if (value.is_double()) {
    number = value.get_double();
  }
  if (!(number >= range.low && number <= range.high) || (range.above_low && !(static_cast<float>(number) > range.low))) {
    return bad_field(field, fmt::format("{} must be a number {} {}", field,
                                        range.above_low ? fmt::format("above {} and at most", range.low) : fmt::format("from {} to", range.low), range.high));
  }
  result = static_cast<float>(number);
  return {};
}

Failure read_bool(std::string_view field, const json::value& value, bool& result) {
  if (!value.is_bool()) {
    return bad_field(field, fmt::format("{} must be true or false, not {}", field, kind_name(value)));
  }
  result = value.get_bool();
  return {};
}

Failure read_token_ids(std::string_view field, const json::array& array, std::int32_t vocabulary_size, std::vector<std::int32_t>& result) {
  result.reserve(array.size());
  for (const json::value& entry : array) {
    std::int32_t id = 0;
    if (read_integer(field, entry, 0, vocabulary_size - 1, id)) {
      return bad_field(field, fmt::format("{}: token ids must be integers from 0 to {}", field, vocabulary_size - 1));
    }
    result.push_back(id);
  }
  return {};
}

Failure refuse_unsupported(const json::object& object, std::span<const UnsupportedField> fields) {
  for (const UnsupportedField& field : fields) {
    if (const json::value* value = find_field(object, field.name); value != nullptr && !field.neutral(*value)) {
      return ApiError{.status = 400,
                      .message = fmt::format("{} is not supported by this server; leave it out, or send {}", field.name, field.accepted),
                      .code = "unsupported_value",
                      .param = std::string(field.name)};
    }
  }
  return {};
}

bool is_one(const json::value& value) {
  return is_number(value, 1);
}
bool is_zero(const json::value& value) {
  return is_number(value, 0);
}
bool is_false(const json::value& value) {
  return value.is_bool() && !value.get_bool();
}
bool is_true(const json::value& value) {
  return value.is_bool() && value.get_bool();
}
bool is_text_format(const json::value& value) {
  const json::object* object = value.if_object();
  const json::value* type = object == nullptr ? nullptr : find_field(*object, "type");
  return type != nullptr && type->is_string() && type->get_string() == "text";
}
bool is_object(const json::value& value) {
  return value.is_object();
}
bool is_empty(const json::value& value) {
  return (value.is_array() && value.get_array().empty()) || (value.is_object() && value.get_object().empty()) ||
         (value.is_string() && value.get_string().empty());
}
bool is_never_neutral(const json::value& /*value*/) {
  return false;
}

}  // namespace lockstep::daemon
