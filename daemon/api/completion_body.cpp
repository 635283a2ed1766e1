#include "daemon/api/completion_body.hpp"

#include <boost/json.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

json::object base_object(const CompletionHeader& header) {
  json::object object;
  object["id"] = header.id;
  object["object"] = "text_completion";
  object["created"] = header.created;
  object["model"] = header.model;
  return object;
}

json::array one_choice(std::string_view text, std::string_view finish_reason) {
  json::object choice;
  choice["index"] = 0;
  choice["text"] = text;
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = finish_reason.empty() ? json::value(nullptr) : json::value(finish_reason);
  json::array choices;
  choices.push_back(std::move(choice));
  return choices;
}

json::object usage_object(const CompletionUsage& usage) {
  json::object object;
  object["prompt_tokens"] = usage.prompt_tokens;
  object["completion_tokens"] = usage.completion_tokens;
  object["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  return object;
}

std::string event(const json::object& object) {
  return fmt::format("data: {}\n\n", json::serialize(object));
}

}  // namespace

std::string completion_body(const CompletionHeader& header, std::string_view text, std::string_view finish_reason, const CompletionUsage& usage) {
  json::object object = base_object(header);
  object["choices"] = one_choice(text, finish_reason);
  object["usage"] = usage_object(usage);
  return json::serialize(object);
}

std::string completion_chunk(const CompletionHeader& header, std::string_view text, std::string_view finish_reason, bool usage_follows) {
  json::object object = base_object(header);
  object["choices"] = one_choice(text, finish_reason);
  if (usage_follows) {
    object["usage"] = nullptr;
  }
  return event(object);
}

std::string completion_usage_chunk(const CompletionHeader& header, const CompletionUsage& usage) {
  json::object object = base_object(header);
  object["choices"] = json::array();
  object["usage"] = usage_object(usage);
  return event(object);
}

std::string error_chunk(const ApiError& error) {
  return fmt::format("data: {}\n\n", error_body(error));
}

}  // namespace lockstep::daemon
