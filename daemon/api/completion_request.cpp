#include "daemon/api/completion_request.hpp"

#include <array>
#include <cmath>
#include <limits>

#include <boost/json.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

constexpr std::size_t kDepthMax = 8;  // a valid body needs 2
constexpr std::size_t kStopTokensMax = 64;

using Failure = std::optional<ApiError>;

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

/// An integer within [low, high]; 1.0 and 2^63 are none.
Failure read_integer(std::string_view field, const json::value& value, std::int64_t low, std::int64_t high, std::int64_t& result) {
  if (const std::int64_t* number = value.if_int64(); number != nullptr && *number >= low && *number <= high) {
    result = *number;
    return {};
  }
  return bad_field(field, fmt::format("{} must be an integer from {} to {}", field, low, high));
}

/// A finite number within [low, high], or (low, high] when `above_low`.
Failure read_number(std::string_view field, const json::value& value, double low, double high, bool above_low, float& result) {
  double number = std::numeric_limits<double>::quiet_NaN();
  if (value.is_int64()) {
    number = static_cast<double>(value.get_int64());
  } else if (value.is_double()) {
    number = value.get_double();
  }
  if (!(number >= low && number <= high) || (above_low && !(static_cast<float>(number) > low))) {
    return bad_field(field, fmt::format("{} must be a number {} {} and at most {}", field, above_low ? "above" : "from", low, high));
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

Failure read_token_ids(std::string_view field, const json::array& array, std::vector<std::int32_t>& result) {
  result.reserve(array.size());
  for (const json::value& entry : array) {
    std::int64_t id = 0;
    if (read_integer(field, entry, 0, std::numeric_limits<std::int32_t>::max(), id)) {
      return bad_field(field, fmt::format("{}: token ids must be integers from 0 to the vocabulary's last id", field));
    }
    result.push_back(static_cast<std::int32_t>(id));
  }
  return {};
}

Failure read_model(const json::value& value, std::string_view served_name) {
  if (!value.is_string()) {
    return bad_field("model", fmt::format("model must be a string, not {}", kind_name(value)));
  }
  if (std::string_view(value.get_string().data(), value.get_string().size()) != served_name) {
    return ApiError{.status = 404,
                    .message = fmt::format("this server serves the model \"{}\" and not the one asked for; GET /v1/models lists it", served_name),
                    .code = "model_not_found",
                    .param = "model"};
  }
  return {};
}

Failure read_prompt(const json::value& value, CompletionRequest& result) {
  if (value.is_string()) {
    if (value.get_string().empty()) {
      return bad_field("prompt", "prompt is empty; at least one token is needed");
    }
    result.prompt = std::string(value.get_string().data(), value.get_string().size());
    return {};
  }
  if (!value.is_array()) {
    return bad_field("prompt", fmt::format("prompt must be a string or an array of token ids, not {}", kind_name(value)));
  }
  const json::array& array = value.get_array();
  if (array.empty()) {
    return bad_field("prompt", "prompt is empty; at least one token is needed");
  }
  if (array.front().is_string() || array.front().is_array()) {
    return bad_field("prompt", "several prompts in one request are not supported; send one request for each");
  }
  return read_token_ids("prompt", array, result.prompt.emplace<std::vector<std::int32_t>>());
}

Failure read_max_tokens(const json::value& value, CompletionRequest& result) {
  std::int64_t number = 0;
  Failure failure = read_integer("max_tokens", value, 1, std::numeric_limits<std::int32_t>::max(), number);
  result.max_tokens = static_cast<std::int32_t>(number);
  return failure;
}

Failure read_top_k(const json::value& value, CompletionRequest& result) {
  std::int64_t number = 0;
  Failure failure = read_integer("top_k", value, -1, std::numeric_limits<std::int32_t>::max(), number);
  result.sampling.top_k = number < 0 ? 0 : static_cast<std::int32_t>(number);  // -1 is "all" elsewhere
  return failure;
}

Failure read_seed(const json::value& value, CompletionRequest& result) {
  if (value.is_int64()) {
    result.sampling.seed = static_cast<std::uint64_t>(value.get_int64());
  } else if (value.is_uint64()) {
    result.sampling.seed = value.get_uint64();
  } else {
    return bad_field("seed", "seed must be an integer of at most 64 bits");
  }
  result.seed_given = true;
  return {};
}

Failure read_stop_token_ids(const json::value& value, CompletionRequest& result) {
  if (!value.is_array() || value.get_array().size() > kStopTokensMax) {
    return bad_field("stop_token_ids", fmt::format("stop_token_ids must be an array of at most {} token ids", kStopTokensMax));
  }
  return read_token_ids("stop_token_ids", value.get_array(), result.stop_token_ids);
}

Failure read_stream_options(const json::value& value, CompletionRequest& result) {
  if (!value.is_object()) {
    return bad_field("stream_options", fmt::format("stream_options must be an object, not {}", kind_name(value)));
  }
  const json::value* include_usage = value.get_object().if_contains("include_usage");
  return include_usage == nullptr || include_usage->is_null() ? Failure{} : read_bool("stream_options.include_usage", *include_usage, result.include_usage);
}

/// One field that is honoured.
struct Field {
  std::string_view name;
  Failure (*read)(const json::value& value, CompletionRequest& result);
};
constexpr std::array kFields{
    Field{"prompt", read_prompt},
    Field{"max_tokens", read_max_tokens},
    Field{"temperature",
          [](const json::value& value, CompletionRequest& result) { return read_number("temperature", value, 0, 2, false, result.sampling.temperature); }},
    Field{"top_p", [](const json::value& value, CompletionRequest& result) { return read_number("top_p", value, 0, 1, true, result.sampling.top_p); }},
    Field{"top_k", read_top_k},
    Field{"seed", read_seed},
    Field{"stream", [](const json::value& value, CompletionRequest& result) { return read_bool("stream", value, result.stream); }},
    Field{"stream_options", read_stream_options},
    Field{"ignore_eos", [](const json::value& value, CompletionRequest& result) { return read_bool("ignore_eos", value, result.ignore_eos); }},
    Field{"stop_token_ids", read_stop_token_ids},
};

bool is_number(const json::value& value, double expected) {
  return (value.is_int64() && static_cast<double>(value.get_int64()) == expected) || (value.is_double() && value.get_double() == expected);
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
bool is_empty(const json::value& value) {
  return (value.is_array() && value.get_array().empty()) || (value.is_object() && value.get_object().empty()) ||
         (value.is_string() && value.get_string().empty());
}
bool is_never_neutral(const json::value& /*value*/) {
  return false;
}

/// One field that other servers honour and this one cannot: accepted only where it asks for nothing. null always asks for nothing.
struct UnsupportedField {
  std::string_view name;
  bool (*neutral)(const json::value& value);
  std::string_view accepted;
};
constexpr std::array kUnsupportedFields{
    UnsupportedField{"n", is_one, "1"},
    UnsupportedField{"best_of", is_one, "1"},
    UnsupportedField{"echo", is_false, "false"},
    UnsupportedField{"logprobs", is_never_neutral, "null"},
    UnsupportedField{"prompt_logprobs", is_never_neutral, "null"},
    UnsupportedField{"stop", is_empty, "null; stop_token_ids is supported"},
    UnsupportedField{"suffix", is_empty, "null"},
    UnsupportedField{"presence_penalty", is_zero, "0"},
    UnsupportedField{"frequency_penalty", is_zero, "0"},
    UnsupportedField{"repetition_penalty", is_one, "1"},
    UnsupportedField{"length_penalty", is_one, "1"},
    UnsupportedField{"min_p", is_zero, "0"},
    UnsupportedField{"min_tokens", is_zero, "0"},
    UnsupportedField{"logit_bias", is_empty, "null"},
    UnsupportedField{"bad_words", is_empty, "null"},
    UnsupportedField{"allowed_token_ids", is_empty, "null"},
    UnsupportedField{"use_beam_search", is_false, "false"},
    UnsupportedField{"response_format", is_never_neutral, "null"},
    UnsupportedField{"structured_outputs", is_never_neutral, "null"},
    UnsupportedField{"guided_json", is_never_neutral, "null"},
    UnsupportedField{"guided_regex", is_never_neutral, "null"},
    UnsupportedField{"guided_choice", is_never_neutral, "null"},
    UnsupportedField{"guided_grammar", is_never_neutral, "null"},
    UnsupportedField{"prompt_embeds", is_never_neutral, "null"},
    UnsupportedField{"priority", is_zero, "0"},
};

Failure parse_fields(const json::object& object, CompletionRequest& result) {
  for (const Field& field : kFields) {
    const json::value* value = object.if_contains(json::string_view(field.name.data(), field.name.size()));
    if (value == nullptr || value->is_null()) {
      continue;
    }
    if (Failure failure = field.read(*value, result)) {
      return failure;
    }
  }
  for (const UnsupportedField& field : kUnsupportedFields) {
    const json::value* value = object.if_contains(json::string_view(field.name.data(), field.name.size()));
    if (value != nullptr && !value->is_null() && !field.neutral(*value)) {
      return ApiError{.status = 400,
                      .message = fmt::format("{} is not supported by this server; leave it out, or send {}", field.name, field.accepted),
                      .code = "unsupported_value",
                      .param = std::string(field.name)};
    }
  }
  return {};
}

}  // namespace

Failure parse_completion_request(std::string_view body, std::string_view served_name, CompletionRequest& result) {
  json::parse_options options;
  options.max_depth = kDepthMax;
  boost::system::error_code error;
  const json::value root = json::parse(json::string_view(body.data(), body.size()), error, {}, options);
  if (error) {
    return ApiError{.status = 400, .message = fmt::format("the body is not JSON: {}", error.message()), .code = "malformed_json"};
  }
  if (!root.is_object()) {
    return ApiError{.status = 400, .message = fmt::format("the body must be a JSON object, not {}", kind_name(root)), .code = "malformed_json"};
  }
  const json::object& object = root.get_object();
  if (const json::value* model = object.if_contains("model"); model != nullptr && !model->is_null()) {
    if (Failure failure = read_model(*model, served_name)) {
      return failure;
    }
  }
  const json::value* prompt = object.if_contains("prompt");
  if (prompt == nullptr || prompt->is_null()) {
    return bad_field("prompt", "prompt is missing; send a string or an array of token ids");
  }
  if (Failure failure = parse_fields(object, result)) {
    return failure;
  }
  if (result.include_usage && !result.stream) {
    return bad_field("stream_options", "stream_options needs stream to be true");
  }
  return {};
}

}  // namespace lockstep::daemon
