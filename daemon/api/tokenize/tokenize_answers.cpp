#include "daemon/api/tokenize/tokenize_answers.hpp"

#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/json/object.hpp>
#include <fmt/format.h>

#include "daemon/api/chat/chat_prompt.hpp"
#include "daemon/api/error_answers.hpp"
#include "daemon/api/request/generation_fields.hpp"
#include "daemon/api/request/json_fields.hpp"
#include "daemon/api/text/json_text.hpp"
#include "daemon/api/text/token_text.hpp"

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

struct TokenizeRequest {
  std::string text;
  std::string_view field;  ///< from which the text came
  bool return_token_strs = false;
};

Failure read_text(const json::object& object, const ApiContext& context, TokenizeRequest& request) {
  const json::value* prompt = find_field(object, "prompt");
  const json::value* messages = find_field(object, "messages");
  if ((prompt == nullptr) == (messages == nullptr)) {
    return bad_field("prompt", "expected either prompt or messages");
  }
  if (prompt != nullptr) {
    request.field = "prompt";
    if (!prompt->is_string()) {
      return bad_field("prompt", fmt::format("prompt must be a string, not {}", kind_name(*prompt)));
    }
    request.text = text_of(*prompt);
    return {};
  }
  request.field = "messages";
  if (context.chat_template == nullptr) {
    return ApiError{
        .status = 400, .message = "this model has no chat template: send prompt instead of messages", .code = "no_chat_template", .param = "messages"};
  }
  return render_conversation(object, context, request.text);
}

Failure read_tokenize_request(std::string_view body, const ApiContext& context, TokenizeRequest& request) {
  json::object object;
  if (Failure failure = parse_object(body, object)) {
    return failure;
  }
  if (Failure failure = read_model_name(object, context)) {
    return failure;
  }
  // The supported tokenizers add no special tokens of their own: true and false are the same.
  bool add_special_tokens = true;
  for (const auto& [name, target] : {std::pair{"add_special_tokens", &add_special_tokens}, std::pair{"return_token_strs", &request.return_token_strs}}) {
    if (const json::value* value = find_field(object, name); value != nullptr) {
      if (Failure failure = read_bool(name, *value, *target)) {
        return failure;
      }
    }
  }
  return read_text(object, context, request);
}

Failure read_detokenize_request(std::string_view body, const ApiContext& context, std::vector<std::int32_t>& tokens) {
  json::object object;
  if (Failure failure = parse_object(body, object)) {
    return failure;
  }
  if (Failure failure = read_model_name(object, context)) {
    return failure;
  }
  const json::value* value = find_field(object, "tokens");
  if (value == nullptr || !value->is_array()) {
    return bad_field("tokens", fmt::format("tokens must be an array of token ids, not {}", value == nullptr ? "absent" : kind_name(*value)));
  }
  return read_token_ids("tokens", value->get_array(), context.vocabulary_size, tokens);
}

HttpResponse refused(const Error& error, std::string_view field) {
  ApiError answer = api_error_of(error);
  answer.param = field;
  return error_response(answer);
}

}  // namespace

HttpResponse tokenize_answer(std::string_view body, const TokenizeContext& context) {
  TokenizeRequest request;
  if (Failure failure = read_tokenize_request(body, context.api, request)) {
    return error_response(*failure);
  }
  const Result<std::vector<std::int32_t>> tokens = context.api.tokenizer->encode(request.text);
  if (!tokens) {
    return refused(tokens.error(), request.field);
  }
  std::string out =
      fmt::format("{{\"count\":{},\"max_model_len\":{},\"tokens\":[{}],\"token_strs\":", tokens->size(), context.max_model_len, fmt::join(*tokens, ","));
  if (request.return_token_strs) {
    out += '[';
    for (const std::int32_t token : *tokens) {
      out += out.back() == '[' ? "" : ",";
      append_json_string(out, token_text_or_bytes(*context.api.tokenizer, token));
    }
    out += "]}";
  } else {
    out += "null}";
  }
  return {.body = std::move(out)};
}

HttpResponse detokenize_answer(std::string_view body, const TokenizeContext& context) {
  std::vector<std::int32_t> tokens;
  if (Failure failure = read_detokenize_request(body, context.api, tokens)) {
    return error_response(*failure);
  }
  const Result<std::string> text = context.api.tokenizer->decode(tokens, false);
  if (!text) {
    return refused(text.error(), "tokens");
  }
  std::string out = "{\"prompt\":";
  append_json_string(out, *text);
  out += '}';
  return {.body = std::move(out)};
}

}  // namespace lockstep::daemon
