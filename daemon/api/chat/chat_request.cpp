#include "daemon/api/chat/chat_request.hpp"

#include <array>
#include <limits>
#include <utility>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "daemon/api/chat/chat_prompt.hpp"
#include "daemon/api/error_answers.hpp"
#include "daemon/api/request/generation_fields.hpp"
#include "daemon/api/request/json_fields.hpp"

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

bool is_none_or_auto(const json::value& value) {
  return value.is_string() && (value.get_string() == "none" || value.get_string() == "auto");
}
bool is_text_alone(const json::value& value) {
  return value.is_array() && value.get_array().size() == 1 && value.get_array().front().is_string() && value.get_array().front().get_string() == "text";
}

bool is_medium(const json::value& value) {
  return value.is_string() && value.get_string() == "medium";
}

constexpr std::array kUnsupportedFields{
    UnsupportedField{"tool_choice", is_none_or_auto, "\"none\""},
    UnsupportedField{"function_call", is_none_or_auto, "\"none\""},
    UnsupportedField{"response_format", is_text_format, "{\"type\": \"text\"}"},
    UnsupportedField{"modalities", is_text_alone, "[\"text\"]"},
    UnsupportedField{"audio", is_never_neutral, "null"},
    UnsupportedField{"prediction", is_object, "null: it could only make the same text come faster"},
    UnsupportedField{"verbosity", is_medium, "\"medium\""},
    UnsupportedField{"web_search_options", is_never_neutral, "null"},
    UnsupportedField{"echo", is_false, "false"},
};

Failure read_log_probabilities(const json::object& object, GenerationJob& job) {
  bool wanted = false;
  if (const json::value* logprobs = find_field(object, "logprobs"); logprobs != nullptr) {
    if (Failure failure = read_bool("logprobs", *logprobs, wanted)) {
      return failure;
    }
  }
  std::int32_t likeliest = 0;
  if (const json::value* top = find_field(object, "top_logprobs"); top != nullptr) {
    if (Failure failure = read_integer("top_logprobs", *top, 0, scheduler::kLogProbabilitiesMax, likeliest)) {
      return failure;
    }
  }
  if (likeliest > 0 && !wanted) {
    return bad_field("top_logprobs", "top_logprobs needs logprobs to be true");
  }
  job.sampling.log_probabilities = wanted ? likeliest : -1;
  return {};
}

}  // namespace

std::optional<ApiError> read_chat_request(std::string_view body, const ApiContext& context, GenerationJob& job) {
  json::object object;
  if (Failure failure = parse_object(body, object)) {
    return failure;
  }
  job.default_max_tokens = context.defaults.max_new_tokens.value_or(std::numeric_limits<std::int32_t>::max());  // or what the context has left
  job.prompt_field = "messages";
  if (Failure failure = read_generation_fields(object, context, job)) {
    return failure;
  }
  if (Failure failure = refuse_unsupported(object, kUnsupportedFields)) {
    return failure;
  }
  if (Failure failure = read_log_probabilities(object, job)) {
    return failure;
  }
  if (context.chat_template == nullptr) {
    return ApiError{.status = 400,
                    .message = "this model has no chat template: use /v1/completions, or serve it with --chat-template",
                    .code = "no_chat_template",
                    .param = "messages"};
  }
  std::string text;
  if (Failure failure = render_conversation(object, context, text)) {
    return failure;
  }
  Result<std::vector<std::int32_t>> tokens = context.tokenizer->encode(text);
  if (!tokens) {
    ApiError error = api_error_of(tokens.error());
    error.param = "messages";
    return error;
  }
  if (tokens->empty()) {
    return bad_field("messages", "messages: the chat template makes an empty prompt of them; at least one token is needed");
  }
  job.prompts.push_back(std::move(*tokens));
  return {};
}

}  // namespace lockstep::daemon
