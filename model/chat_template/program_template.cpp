#include "model/chat_template/program_template.hpp"

#include "model/chat_template/evaluation/interpreter.hpp"
#include "model/chat_template/syntax/parser.hpp"

namespace lockstep::model::chat {

ProgramTemplate::ProgramTemplate(Program program, std::vector<std::pair<std::string, TemplateValue>> variables)
    : program_(std::move(program)), variables_(std::move(variables)) {}

Result<std::unique_ptr<ProgramTemplate>> ProgramTemplate::create(std::string_view source, std::string name,
                                                                 std::vector<std::pair<std::string, TemplateValue>> variables) {
  LOCKSTEP_ASSIGN_OR_RETURN(const SourceText text, SourceText::create(source, std::move(name)));
  LOCKSTEP_ASSIGN_OR_RETURN(Program program, parse_program(text));
  return std::unique_ptr<ProgramTemplate>(new ProgramTemplate(std::move(program), std::move(variables)));
}

Result<std::string> ProgramTemplate::render(const ChatInput& input) const {
  const std::time_t now = std::time(nullptr);
  std::tm local_time{};
  localtime_r(&now, &local_time);
  return render_at(input, local_time);
}

Result<std::string> ProgramTemplate::render_at(const ChatInput& input, const std::tm& local_time) const {
  Interpreter interpreter(program_, local_time);
  for (const auto& [name, value] : variables_) {
    LOCKSTEP_RETURN_IF_ERROR(interpreter.set_variable(name, value));
  }
  LOCKSTEP_RETURN_IF_ERROR(interpreter.set_variable("messages", input.messages));
  LOCKSTEP_RETURN_IF_ERROR(interpreter.set_variable("tools", input.tools));
  LOCKSTEP_RETURN_IF_ERROR(interpreter.set_variable("documents", TemplateValue()));
  LOCKSTEP_RETURN_IF_ERROR(interpreter.set_variable("add_generation_prompt", TemplateValue::boolean(input.add_generation_prompt)));
  if (input.extra.kind() == TemplateValue::Kind::kObject) {
    for (const TemplateValue::Member& member : input.extra.members()) {
      LOCKSTEP_RETURN_IF_ERROR(interpreter.set_variable(member.key, member.value));
    }
  }
  return interpreter.run();
}

}  // namespace lockstep::model::chat
