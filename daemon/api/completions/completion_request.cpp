#include "daemon/api/completions/completion_request.hpp"

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

constexpr std::array kUnsupportedFields{
    UnsupportedField{"suffix", is_empty, "null"},
    UnsupportedField{"response_format", is_text_format, "{\"type\": \"text\"}"},
    UnsupportedField{"prompt_embeds", is_never_neutral, "null"},
};

Failure add_text(const json::value& value, const ApiContext& context, bool echo, GenerationJob& job) {
  const std::string_view text = text_of(value);
  if (text.empty()) {
    return bad_field("prompt", "prompt is empty; at least one token is needed");
  }
  Result<std::vector<std::int32_t>> tokens = context.tokenizer->encode(text);
  if (!tokens) {
    ApiError error = api_error_of(tokens.error());
    error.param = "prompt";
    return error;
  }
  job.prompts.push_back(std::move(*tokens));
  if (echo) {
    job.echoes.emplace_back(text);
  }
  return {};
}

Failure add_ids(const json::array& array, const ApiContext& context, bool echo, GenerationJob& job) {
  if (array.empty()) {
    return bad_field("prompt", "prompt is empty; at least one token is needed");
  }
  if (Failure failure = read_token_ids("prompt", array, context.vocabulary_size, job.prompts.emplace_back())) {
    return failure;
  }
  if (echo) {
    Result<std::string> text = context.tokenizer->decode(job.prompts.back(), false);
    if (!text) {
      return bad_field("prompt", text.error().message);
    }
    job.echoes.push_back(std::move(*text));
  }
  return {};
}

/// A text, a list of token ids, or a list of either.
Failure read_prompts(const json::value& value, const ApiContext& context, bool echo, GenerationJob& job) {
  if (value.is_string()) {
    return add_text(value, context, echo, job);
  }
  if (!value.is_array()) {
    return bad_field("prompt", fmt::format("prompt must be a string, an array of token ids, or an array of those, not {}", kind_name(value)));
  }
  const json::array& array = value.get_array();
  if (array.empty() || !(array.front().is_string() || array.front().is_array())) {
    return add_ids(array, context, echo, job);
  }
  if (array.size() * static_cast<std::size_t>(job.choices_per_prompt) > kChoicesMax) {
    return bad_field("prompt",
                     fmt::format("{} prompts times n {} ask for more than {} texts; send several requests", array.size(), job.choices_per_prompt, kChoicesMax));
  }
  for (const json::value& entry : array) {
    if (entry.kind() != array.front().kind()) {
      return bad_field("prompt", "prompt: an array must be all strings, all arrays of token ids, or all token ids");
    }
    if (Failure failure = entry.is_string() ? add_text(entry, context, echo, job) : add_ids(entry.get_array(), context, echo, job)) {
      return failure;
    }
  }
  return {};
}

}  // namespace

std::optional<ApiError> read_completion_request(std::string_view body, const ApiContext& context, GenerationJob& job) {
  json::object object;
  if (Failure failure = parse_object(body, object)) {
    return failure;
  }
  bool echo = false;
  if (const json::value* value = find_field(object, "echo"); value != nullptr) {
    if (Failure failure = read_bool("echo", *value, echo)) {
      return failure;
    }
  }
  job.may_generate_nothing = echo;
  if (Failure failure = read_generation_fields(object, context, job)) {
    return failure;
  }
  if (Failure failure = refuse_unsupported(object, kUnsupportedFields)) {
    return failure;
  }
  if (const json::value* logprobs = find_field(object, "logprobs"); logprobs != nullptr) {
    if (Failure failure = read_integer("logprobs", *logprobs, 0, scheduler::kLogProbabilitiesMax, job.sampling.log_probabilities)) {
      return failure;
    }
  }
  job.scores_prompts = echo && job.sampling.log_probabilities >= 0;
  echo = echo && !job.scores_prompts;
  const json::value* prompt = find_field(object, "prompt");
  return prompt == nullptr ? bad_field("prompt", "prompt is missing; send a string or an array of token ids") : read_prompts(*prompt, context, echo, job);
}

}  // namespace lockstep::daemon
