#include "daemon/api/embeddings/embedding_request.hpp"

#include <array>
#include <utility>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "daemon/api/error_answers.hpp"
#include "daemon/api/request/generation_fields.hpp"
#include "daemon/api/request/json_fields.hpp"

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

constexpr std::string_view kNoTokens = "input is empty; each text needs at least one token";

constexpr std::array kUnsupportedFields{
    UnsupportedField{"truncate_prompt_tokens", is_never_neutral, "null"},
    UnsupportedField{"additional_data", is_never_neutral, "null"},
    UnsupportedField{"messages", is_never_neutral, "null, and texts in input"},
    UnsupportedField{"normalize", is_true, "true"},
    UnsupportedField{"priority", is_zero, "0"},
};

Failure add_text(const json::value& value, const EmbeddingContext& context, EmbeddingJob& job) {
  if (text_of(value).empty()) {
    return bad_field("input", std::string(kNoTokens));
  }
  Result<std::vector<std::int32_t>> tokens = context.api.tokenizer->encode(text_of(value));
  if (!tokens) {
    ApiError error = api_error_of(tokens.error());
    error.param = "input";
    return error;
  }
  job.inputs.push_back(std::move(*tokens));
  return {};
}

Failure add_ids(const json::array& array, const EmbeddingContext& context, EmbeddingJob& job) {
  return array.empty() ? bad_field("input", std::string(kNoTokens)) : read_token_ids("input", array, context.api.vocabulary_size, job.inputs.emplace_back());
}

/// A text, a list of token ids, or a list of either.
Failure read_inputs(const json::value& value, const EmbeddingContext& context, EmbeddingJob& job) {
  if (value.is_string()) {
    return add_text(value, context, job);
  }
  if (!value.is_array()) {
    return bad_field("input", fmt::format("input must be a string, an array of token ids, or an array of those, not {}", kind_name(value)));
  }
  const json::array& array = value.get_array();
  if (array.empty() || !(array.front().is_string() || array.front().is_array())) {
    return add_ids(array, context, job);
  }
  if (array.size() > kEmbeddingInputsMax) {
    return bad_field("input", fmt::format("input has {} texts, expected at most {}; send several requests", array.size(), kEmbeddingInputsMax));
  }
  for (const json::value& entry : array) {
    if (entry.kind() != array.front().kind()) {
      return bad_field("input", "input: an array must be all strings, all arrays of token ids, or all token ids");
    }
    if (Failure failure = entry.is_string() ? add_text(entry, context, job) : add_ids(entry.get_array(), context, job)) {
      return failure;
    }
  }
  return {};
}

Failure read_encoding(const json::object& object, EmbeddingJob& job) {
  const json::value* format = find_field(object, "encoding_format");
  if (format == nullptr) {
    return {};
  }
  if (!format->is_string() || (text_of(*format) != "float" && text_of(*format) != "base64")) {
    return bad_field("encoding_format", "encoding_format must be \"float\" or \"base64\"");
  }
  job.base64 = text_of(*format) == "base64";
  return {};
}

/// A shorter vector would be another model's: only ones that are trained for it may be cut.
Failure read_dimensions(const json::object& object, std::int32_t hidden_size) {
  const json::value* dimensions = find_field(object, "dimensions");
  std::int32_t value = 0;
  if (dimensions == nullptr || !read_integer("dimensions", *dimensions, hidden_size, hidden_size, value)) {
    return {};
  }
  return ApiError{.status = 400,
                  .message = fmt::format("this model's embeddings have {} dimensions, which cannot be changed; leave dimensions out", hidden_size),
                  .code = "unsupported_value",
                  .param = "dimensions"};
}

}  // namespace

std::optional<ApiError> read_embedding_request(std::string_view body, const EmbeddingContext& context, EmbeddingJob& job) {
  json::object object;
  if (Failure failure = parse_object(body, object)) {
    return failure;
  }
  if (Failure failure = read_model_name(object, context.api)) {
    return failure;
  }
  if (Failure failure = read_encoding(object, job)) {
    return failure;
  }
  if (Failure failure = read_dimensions(object, context.hidden_size)) {
    return failure;
  }
  if (Failure failure = refuse_unsupported(object, kUnsupportedFields)) {
    return failure;
  }
  const json::value* input = find_field(object, "input");
  return input == nullptr ? bad_field("input", "input is missing; send a string, an array of token ids, or an array of those")
                          : read_inputs(*input, context, job);
}

}  // namespace lockstep::daemon
