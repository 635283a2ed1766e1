// Renders chat templates for differential_test.py: one JSON object a line in, one a line out.
// In   {"template": text, "context": {"messages": [...], "tools": ..., "add_generation_prompt": ..., any other variable}}.
// Out  {"text": ...} or {"error": message, "stage": "parse" or "render", "code": name}
#include <iostream>
#include <string>

#include <boost/json.hpp>

#include "lockstep/model/chat_template.hpp"
#include "model/chat_template/program_template.hpp"

namespace lockstep::model {
namespace {

TemplateValue to_template_value(const boost::json::value& value) {
  switch (value.kind()) {
    case boost::json::kind::null:
      return {};
    case boost::json::kind::bool_:
      return TemplateValue::boolean(value.get_bool());
    case boost::json::kind::int64:
      return TemplateValue::integer(value.get_int64());
    case boost::json::kind::uint64:
      return TemplateValue::number(static_cast<double>(value.get_uint64()));
    case boost::json::kind::double_:
      return TemplateValue::number(value.get_double());
    case boost::json::kind::string:
      return TemplateValue::string(std::string(value.get_string()));
    case boost::json::kind::array: {
      TemplateValue list = TemplateValue::list();
      for (const boost::json::value& element : value.get_array()) {
        list.push_back(to_template_value(element));
      }
      return list;
    }
    case boost::json::kind::object: {
      TemplateValue object = TemplateValue::object();
      for (const auto& member : value.get_object()) {
        object.set(member.key(), to_template_value(member.value()));
      }
      return object;
    }
  }
  return {};
}

boost::json::object failed(const Error& error, std::string_view stage) {
  return {{"error", error.message}, {"stage", stage}, {"code", error_code_name(error.code)}};
}

/// 2026-03-05 14:07:09, a Thursday: the time that the Python side shows too.
std::tm fixed_time() {
  std::tm time{};
  time.tm_year = 126;
  time.tm_mon = 2;
  time.tm_mday = 5;
  time.tm_hour = 14;
  time.tm_min = 7;
  time.tm_sec = 9;
  time.tm_wday = 4;
  time.tm_yday = 63;
  return time;
}

boost::json::object render(const boost::json::object& request) {
  const auto parsed = chat::ProgramTemplate::create(std::string_view(request.at("template").as_string()), "t", {});
  if (!parsed) {
    return failed(parsed.error(), "parse");
  }
  ChatInput input;
  input.extra = to_template_value(request.at("context"));
  if (const TemplateValue* messages = input.extra.find("messages")) {
    input.messages = *messages;
  }
  const auto text = (*parsed)->render_at(input, fixed_time());
  return text ? boost::json::object{{"text", *text}} : failed(text.error(), "render");
}

}  // namespace
}  // namespace lockstep::model

int main() {
  std::ios::sync_with_stdio(false);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << boost::json::serialize(lockstep::model::render(boost::json::parse(line).as_object())) << '\n';
  }
  return 0;
}
