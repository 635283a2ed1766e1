#include "daemon/api/chat/chat_prompt.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "daemon/api/error_answers.hpp"
#include "daemon/api/text/find_last.hpp"

namespace lockstep::daemon {
namespace {

namespace json = boost::json;
using model::TemplateValue;

constexpr std::size_t kMessagesMax = 4096;
constexpr std::size_t kRoleBytesMax = 64;

/// Nesting was bounded when the body was parsed.
TemplateValue to_template_value(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return {};
    case json::kind::bool_:
      return TemplateValue::boolean(value.get_bool());
    case json::kind::int64:
      return TemplateValue::integer(value.get_int64());
    case json::kind::uint64:  // beyond 2^63
      return TemplateValue::number(static_cast<double>(value.get_uint64()));
    case json::kind::double_:
      return TemplateValue::number(value.get_double());
    case json::kind::string:
      return TemplateValue::string(std::string(text_of(value)));
    case json::kind::array: {
      TemplateValue list = TemplateValue::list();
      for (const json::value& element : value.get_array()) {
        list.push_back(to_template_value(element));
      }
      return list;
    }
    case json::kind::object:
      break;
  }
  TemplateValue object = TemplateValue::object();
  for (const json::key_value_pair& member : value.get_object()) {
    object.set(std::string_view(member.key().data(), member.key().size()), to_template_value(member.value()));
  }
  return object;
}

Failure read_parts(const std::string& field, const json::array& parts, std::string& content) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string name = fmt::format("{}[{}]", field, i);
    const json::object* part = parts[i].if_object();
    const json::value* type = part == nullptr ? nullptr : find_field(*part, "type");
    if (type == nullptr || !type->is_string()) {
      return bad_field(name, fmt::format("{} must be an object with a type, {{\"type\": \"text\", \"text\": ...}}", name));
    }
    if (type->get_string() != "text") {
      return ApiError{.status = 400,
                      .message = fmt::format("{}: this server takes parts of type \"text\" only; images, audio and files are not supported", name),
                      .code = "unsupported_value",
                      .param = name};
    }
    const json::value* text = find_field(*part, "text");
    if (text == nullptr || !text->is_string()) {
      return bad_field(name, fmt::format("{}.text must be a string", name));
    }
    content += i == 0 ? "" : "\n";
    content += text_of(*text);
  }
  return {};
}

/// A text, or parts that become one. `may_be_empty`: of an answer that had none, there may be nothing.
Failure read_content(const std::string& field, const json::value* value, bool may_be_empty, std::string& content) {
  if (may_be_empty && (value == nullptr || (value->is_array() && value->get_array().empty()))) {
    return {};
  }
  if (value != nullptr && value->is_string()) {
    content = text_of(*value);
    return {};
  }
  if (value != nullptr && value->is_array() && !value->get_array().empty()) {
    return read_parts(field, value->get_array(), content);
  }
  return bad_field(field, fmt::format("{} must be a string or a list of text parts", field));
}

/// Whether a text among `value` and what it holds has a special token in it.
bool has_special_token(const json::value& value, const model::Tokenizer& tokenizer) {
  if (const json::array* array = value.if_array()) {
    return std::ranges::any_of(*array, [&tokenizer](const json::value& element) { return has_special_token(element, tokenizer); });
  }
  if (const json::object* object = value.if_object()) {
    return std::ranges::any_of(*object, [&tokenizer](const auto& member) { return has_special_token(member.value(), tokenizer); });
  }
  if (!value.is_string()) {
    return false;
  }
  const Result<std::vector<std::int32_t>> tokens = tokenizer.encode(text_of(value));
  return tokens && std::ranges::any_of(*tokens, [&tokenizer](std::int32_t token) { return tokenizer.is_special(token); });
}

constexpr std::array<std::string_view, 2> kCalls{"tool_calls", "function_call"};

bool is_call(std::string_view member) {
  return std::ranges::find(kCalls, member) != kCalls.end();
}

Failure read_message(std::size_t index, const json::value& value, const ApiContext& context, TemplateValue& message) {
  const std::string name = fmt::format("messages[{}]", index);
  if (!value.is_object()) {
    return bad_field(name, fmt::format("{} must be an object with role and content, not {}", name, kind_name(value)));
  }
  const json::object& object = value.get_object();
  const json::value* role = find_field(object, "role");
  if (role == nullptr || !role->is_string() || role->get_string().empty() || role->get_string().size() > kRoleBytesMax) {
    return bad_field(name + ".role", fmt::format("{}.role must be a string of 1 to {} bytes, such as \"user\"", name, kRoleBytesMax));
  }
  for (const std::string_view calls : kCalls) {
    if (const json::value* found = find_field(object, calls); found != nullptr && !is_empty(*found)) {
      return ApiError{.status = 400,
                      .message = fmt::format("{}.{} is not supported by this server: it knows no tools", name, calls),
                      .code = "unsupported_value",
                      .param = fmt::format("{}.{}", name, calls)};
    }
  }
  std::string content;
  if (Failure failure = read_content(name + ".content", find_field(object, "content"), role->get_string() == "assistant", content)) {
    return failure;
  }
  if (context.refuses_special_tokens && has_special_token(value, *context.tokenizer)) {
    return bad_field(name, fmt::format("{} has the text of one of the model's special tokens, which this server does not take in messages", name));
  }
  message = TemplateValue::object();
  for (const json::key_value_pair& member : object) {  // what else it has, a name for example, is the template's
    const std::string_view key(member.key().data(), member.key().size());
    // An answer that a client sends back has members without a value. Templates ask whether there is one, and take it for a call of a tool.
    if (!member.value().is_null() && !is_call(key)) {
      message.set(key, to_template_value(member.value()));
    }
  }
  message.set("content", TemplateValue::string(std::move(content)));
  return {};
}

/// What other servers show to the model beside the messages.
constexpr std::array kNotRendered{
    UnsupportedField{"functions", is_empty, "null"},
    UnsupportedField{"documents", is_empty, "null; chat_template_kwargs reaches the template"},
    UnsupportedField{"chat_template", is_never_neutral, "null: the template is the server's"},
    UnsupportedField{"mm_processor_kwargs", is_empty, "null"},
};

/// Tools that the model is told not to call are not shown to it.
Failure check_tools(const json::object& object) {
  const json::value* tools = find_field(object, "tools");
  const json::value* choice = find_field(object, "tool_choice");
  if (tools == nullptr || is_empty(*tools) || (tools->is_array() && choice != nullptr && choice->is_string() && choice->get_string() == "none")) {
    return {};
  }
  return ApiError{.status = 400,
                  .message =
                      "tools are not supported by this server: calls of them are not recognised in the model's text; leave them out, or send tool_choice "
                      "\"none\"",
                  .code = "unsupported_value",
                  .param = "tools"};
}

Failure read_messages(const json::object& request, const ApiContext& context, TemplateValue& messages) {
  const json::value* value = find_field(request, "messages");
  if (value == nullptr || !value->is_array() || value->get_array().empty() || value->get_array().size() > kMessagesMax) {
    return bad_field("messages", fmt::format("messages must be a list of 1 to {} messages, each with role and content", kMessagesMax));
  }
  messages = TemplateValue::list();
  const json::array& array = value->get_array();
  for (std::size_t i = 0; i < array.size(); ++i) {
    TemplateValue message;
    if (Failure failure = read_message(i, array[i], context, message)) {
      return failure;
    }
    messages.push_back(std::move(message));
  }
  return {};
}

/// More variables of the template.
Failure read_extra(const json::object& request, TemplateValue& extra) {
  extra = TemplateValue::object();
  if (const json::value* effort = find_field(request, "reasoning_effort"); effort != nullptr) {
    if (!effort->is_string()) {
      return bad_field("reasoning_effort", fmt::format("reasoning_effort must be a string, not {}", kind_name(*effort)));
    }
    extra.set("reasoning_effort", to_template_value(*effort));
  }
  if (const json::value* more = find_field(request, "chat_template_kwargs"); more != nullptr) {
    if (!more->is_object()) {
      return bad_field("chat_template_kwargs", fmt::format("chat_template_kwargs must be an object, not {}", kind_name(*more)));
    }
    for (const json::key_value_pair& member : more->get_object()) {
      extra.set(std::string_view(member.key().data(), member.key().size()), to_template_value(member.value()));
    }
  }
  return {};
}

/// Cuts what the template wrote after the last message, so that the model goes on with it.
Failure keep_final_message_open(const std::string& content, std::string& text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const std::size_t begin = content.find_first_not_of(kBlank);
  if (begin == std::string::npos) {
    return bad_field("continue_final_message", "continue_final_message: the last message has no text to go on with");
  }
  const std::string trimmed = content.substr(begin, content.find_last_not_of(kBlank) + 1 - begin);
  for (const std::string& wanted : {content, trimmed}) {  // many templates trim
    if (const std::size_t at = find_last(text, wanted); at != std::string_view::npos) {
      text.resize(at + wanted.size());
      return {};
    }
  }
  return bad_field("continue_final_message", "continue_final_message: the chat template changes the last message's text, so its end cannot be found");
}

}  // namespace

Failure render_conversation(const json::object& request, const ApiContext& context, std::string& text) {
  if (Failure failure = refuse_unsupported(request, kNotRendered)) {
    return failure;
  }
  if (Failure failure = check_tools(request)) {
    return failure;
  }
  model::ChatInput input;
  if (Failure failure = read_messages(request, context, input.messages)) {
    return failure;
  }
  if (Failure failure = read_extra(request, input.extra)) {
    return failure;
  }
  bool continues = false;
  if (const json::value* value = find_field(request, "continue_final_message"); value != nullptr) {
    if (Failure failure = read_bool("continue_final_message", *value, continues)) {
      return failure;
    }
  }
  input.add_generation_prompt = !continues;
  if (const json::value* value = find_field(request, "add_generation_prompt"); value != nullptr) {
    if (Failure failure = read_bool("add_generation_prompt", *value, input.add_generation_prompt)) {
      return failure;
    }
  }
  if (continues && input.add_generation_prompt) {
    return bad_field("continue_final_message", "continue_final_message and add_generation_prompt exclude each other; send one of them");
  }
  Result<std::string> rendered = context.chat_template->render(input);
  if (!rendered) {
    ApiError error = api_error_of(rendered.error());
    error.param = "messages";
    return error;
  }
  text = std::move(*rendered);
  return continues ? keep_final_message_open(input.messages.elements().back().find("content")->as_string(), text) : Failure{};
}

}  // namespace lockstep::daemon
