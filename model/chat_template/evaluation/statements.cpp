// Running statements.
#include <algorithm>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/evaluation/interpreter.hpp"
#include "model/chat_template/values/to_text.hpp"

// execute and evaluate call each other: depth_ bounds the recursion.
// NOLINTBEGIN(misc-no-recursion)
namespace lockstep::model::chat {

Interpreter::Interpreter(const Program& program, const std::tm& local_time) : program_(program) {
  runtime_.local_time = local_time;
}

Status Interpreter::set_variable(std::string_view name, const TemplateValue& value) {
  const auto place = std::ranges::find(program_.names, name);
  if (place == program_.names.end()) {
    return {};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(Value converted, to_value(runtime_.budget, value));
  root_.set(static_cast<int>(place - program_.names.begin()), std::move(converted));
  return {};
}

Result<std::string> Interpreter::run() {
  LOCKSTEP_RETURN_IF_ERROR(execute(program_.body));
  return std::move(output_);
}

Error Interpreter::placed(Error error, int line) {
  if (!placed_ && !runtime_.raised) {
    error.message = fmt::format("the chat template does not fit this conversation: line {} of it: {}", line, error.message);
    placed_ = true;
  }
  return error;
}

Status Interpreter::write(std::string_view text) {
  if (text.size() > kTextBytesMax - std::min(out_->size(), kTextBytesMax)) {
    return failure("the prompt would have more than 16 MiB: shorten the conversation");
  }
  *out_ += text;
  return {};
}

Result<Interpreter::Flow> Interpreter::execute(const Block& block) {
  for (const auto& statement : block) {
    LOCKSTEP_RETURN_IF_ERROR(runtime_.budget.step());
    if (++depth_ > kCallDepthMax) {
      return placed(failure("macros that call each other too deep"), statement->line);
    }
    auto flow = execute(*statement);
    --depth_;
    if (!flow) {
      return placed(std::move(flow).error(), statement->line);
    }
    if (*flow != Flow::kNext) {
      return flow;
    }
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute(const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::kData:
      LOCKSTEP_RETURN_IF_ERROR(write(statement.text));
      return Flow::kNext;
    case StatementKind::kOutput: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value value, evaluate(*statement.expressions[0]));
      LOCKSTEP_ASSIGN_OR_RETURN(const Value text, soft_text(runtime_, value));
      LOCKSTEP_RETURN_IF_ERROR(write(text.as_text()));
      return Flow::kNext;
    }
    case StatementKind::kIf:
      return execute_if(statement);
    case StatementKind::kFor:
      return execute_for(statement);
    case StatementKind::kSet: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value value, evaluate(*statement.expressions[0]));
      LOCKSTEP_RETURN_IF_ERROR(assign(statement.targets[0], value, *scope_));
      return Flow::kNext;
    }
    case StatementKind::kSetBlock:
      LOCKSTEP_RETURN_IF_ERROR(execute_set_block(statement));
      return Flow::kNext;
    case StatementKind::kMacro:
      scope_->set(statement.name, Value(Value::Data(MacroRef{&statement})));
      return Flow::kNext;
    case StatementKind::kWith:
      return execute_scoped(statement);
    case StatementKind::kFilter:
      LOCKSTEP_RETURN_IF_ERROR(execute_filter(statement));
      return Flow::kNext;
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute_if(const Statement& statement) {
  for (std::size_t i = 0; i < statement.expressions.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Value condition, evaluate(*statement.expressions[i]));
    if (is_true(condition)) {
      return execute(statement.blocks[i]);
    }
  }
  return statement.blocks.size() > statement.expressions.size() ? execute(statement.blocks.back()) : Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute_scoped(const Statement& statement) {
  Scope inner{.parent = scope_};
  for (std::size_t i = 0; i < statement.targets.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Value value, evaluate(*statement.expressions[i]));
    LOCKSTEP_RETURN_IF_ERROR(assign(statement.targets[i], value, inner));
  }
  scope_ = &inner;
  auto flow = execute(statement.blocks[0]);
  scope_ = inner.parent;
  return flow;
}

/// What a block with names of its own writes.
Result<std::string> Interpreter::captured(const Block& block) {
  Scope inner{.parent = scope_};
  std::string text;
  std::string* const outer_out = out_;
  scope_ = &inner;
  out_ = &text;
  auto flow = execute(block);
  scope_ = inner.parent;
  out_ = outer_out;
  LOCKSTEP_RETURN_IF_ERROR(flow);
  LOCKSTEP_RETURN_IF_ERROR(runtime_.budget.allocate(text.size()));
  return text;
}

Status Interpreter::execute_set_block(const Statement& statement) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::string text, captured(statement.blocks[0]));
  Value value = Value::text(std::move(text));
  if (statement.expressions[0]) {
    LOCKSTEP_ASSIGN_OR_RETURN(value, apply_filters(*statement.expressions[0], value));
  }
  return assign(statement.targets[0], value, *scope_);
}

Status Interpreter::execute_filter(const Statement& statement) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::string text, captured(statement.blocks[0]));
  LOCKSTEP_ASSIGN_OR_RETURN(const Value value, apply_filters(*statement.expressions[0], Value::text(std::move(text))));
  LOCKSTEP_ASSIGN_OR_RETURN(const Value shown, soft_text(runtime_, value));
  return write(shown.as_text());
}

Status Interpreter::assign(const Target& target, const Value& value, Scope& scope) {
  if (!target.parts.empty()) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime_, value));
    if (elements.size() != target.parts.size()) {
      return failure(fmt::format("{} values for {} names", elements.size(), target.parts.size()));
    }
    for (std::size_t i = 0; i < elements.size(); ++i) {
      LOCKSTEP_RETURN_IF_ERROR(assign(target.parts[i], elements[i], scope));
    }
    return {};
  }
  if (target.attribute.empty()) {
    scope.set(target.name, value);
    return {};
  }
  const Value* holder = scope.find(target.name);
  const auto* object = holder == nullptr ? nullptr : holder->get<NamespaceObject*>();
  if (object == nullptr) {
    return failure(fmt::format("'{}' is no namespace, so '{}' of it cannot be set", program_.names[static_cast<std::size_t>(target.name)], target.attribute));
  }
  (*object)->set(target.attribute, value);
  return {};
}

}  // namespace lockstep::model::chat
// NOLINTEND(misc-no-recursion)
