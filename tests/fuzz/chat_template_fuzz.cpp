// Goal: no chat template and no conversation makes rendering crash, hang or grow without bound.
// Method: the input is a template and, after a zero byte, the text of the messages; a template that parses is rendered twice, to the same.
#include <cstdint>
#include <string>

#include "lockstep/core/check.hpp"
#include "lockstep/model/chat_template.hpp"
#include "tests/support/memory_file.hpp"

namespace {

using lockstep::model::TemplateValue;

TemplateValue message(std::string_view role, std::string_view content) {
  TemplateValue value = TemplateValue::object();
  value.set("role", TemplateValue::string(std::string(role)));
  value.set("content", TemplateValue::string(std::string(content)));
  return value;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lockstep;
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view source = fuzz::take_until(rest, '\0');
  const auto parsed = model::ChatTemplate::parse(std::string(source), "fuzz");
  if (!parsed) {
    LOCKSTEP_CHECK(!parsed.error().message.empty(), "a refusal without a reason");
    return 0;
  }
  model::ChatInput input;
  input.messages = TemplateValue::list();
  input.messages.push_back(message("system", "be brief"));
  input.messages.push_back(message("user", rest));
  input.messages.push_back(message("assistant", "<think>1</think>\n 2"));
  input.messages.push_back(message("user", rest.substr(0, rest.size() / 2)));
  input.extra = TemplateValue::object();
  input.extra.set("number", TemplateValue::integer(static_cast<std::int64_t>(size)));
  const Result<std::string> first = (*parsed)->render(input);
  const Result<std::string> second = (*parsed)->render(input);
  LOCKSTEP_CHECK(first.has_value() == second.has_value(), "rendered twice, differently");
  LOCKSTEP_CHECK(first ? *first == *second : !first.error().message.empty(), "rendered twice, differently, or refused without a reason");
  return 0;
}
