// Evaluating expressions.
#include <algorithm>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/evaluation/interpreter.hpp"
#include "model/chat_template/values/to_text.hpp"

// NOLINTBEGIN(misc-no-recursion): as in statements.cpp
namespace lockstep::model::chat {

Result<Value> Interpreter::evaluate(const Expression& expression) {
  LOCKSTEP_RETURN_IF_ERROR(runtime_.budget.step());
  if (++depth_ > kCallDepthMax) {
    return placed(failure("macros that call each other too deep"), expression.line);
  }
  auto value = evaluate_kind(expression);
  --depth_;
  if (!value) {
    return placed(std::move(value).error(), expression.line);
  }
  return value;
}

Result<Value> Interpreter::evaluate_kind(const Expression& expression) {
  const auto child = [&](std::size_t index) { return evaluate(*expression.children[index]); };
  switch (expression.kind) {
    case ExpressionKind::kConstant:
      return expression.constant;
    case ExpressionKind::kName:
      return evaluate_name(expression);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
      return evaluate_elements(expression);
    case ExpressionKind::kDict:
      return evaluate_dict(expression);
    case ExpressionKind::kAttribute: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value value, child(0));
      const auto* loop = value.get<LoopState*>();
      return loop != nullptr ? loop_attribute(**loop, expression.text) : get_attribute(runtime_, value, expression.text);
    }
    case ExpressionKind::kItem: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value value, child(0));
      LOCKSTEP_ASSIGN_OR_RETURN(const Value key, child(1));
      const auto* loop = value.get<LoopState*>();
      return loop != nullptr && key.is_text() ? loop_attribute(**loop, key.as_text()) : get_item(runtime_, value, key);
    }
    case ExpressionKind::kSlice: {
      std::array<Value, 4> parts;
      for (std::size_t i = 0; i < parts.size(); ++i) {
        LOCKSTEP_ASSIGN_OR_RETURN(parts[i], child(i));
      }
      return slice(runtime_, parts[0], parts[1], parts[2], parts[3]);
    }
    case ExpressionKind::kCall:
      return evaluate_call(expression);
    case ExpressionKind::kFilter:
    case ExpressionKind::kTest: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value input, child(0));
      return evaluate_builtin(expression, &input);
    }
    case ExpressionKind::kNot: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value value, child(0));
      return Value::boolean(!is_true(value));
    }
    case ExpressionKind::kNegative:
    case ExpressionKind::kPositive: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value value, child(0));
      return negate(value, expression.kind == ExpressionKind::kNegative);
    }
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr: {
      LOCKSTEP_ASSIGN_OR_RETURN(Value left, child(0));
      return is_true(left) == (expression.kind == ExpressionKind::kOr) ? Result<Value>(std::move(left)) : child(1);
    }
    case ExpressionKind::kCompare:
      return evaluate_compare(expression);
    case ExpressionKind::kConcatenate:
      return evaluate_concatenation(expression);
    case ExpressionKind::kBinary: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value left, child(0));
      LOCKSTEP_ASSIGN_OR_RETURN(const Value right, child(1));
      return apply_binary(runtime_, expression.binary, left, right);
    }
    case ExpressionKind::kConditional: {
      LOCKSTEP_ASSIGN_OR_RETURN(const Value condition, child(1));
      if (is_true(condition)) {
        return child(0);
      }
      return expression.children[2] ? child(2) : Value::undefined("an inline 'if' is false and has no 'else'");
    }
  }
  return Value::none();
}

Result<Value> Interpreter::evaluate_name(const Expression& expression) {
  if (const Value* value = scope_->find(expression.name)) {
    return *value;
  }
  const std::string& name = program_.names[static_cast<std::size_t>(expression.name)];
  if (const Builtin* function = find_function(name)) {
    return Value(Value::Data(function));
  }
  return Value::undefined(fmt::format("'{}' is undefined", name));
}

Result<Value> Interpreter::evaluate_elements(const Expression& expression) {
  std::vector<Value> elements;
  elements.reserve(expression.children.size());
  for (const ExpressionPtr& child : expression.children) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value element, evaluate(*child));
    elements.push_back(std::move(element));
  }
  return make_sequence(runtime_.budget, expression.kind == ExpressionKind::kList ? Sequence::Flavor::kList : Sequence::Flavor::kTuple, std::move(elements));
}

Result<Value> Interpreter::evaluate_dict(const Expression& expression) {
  std::vector<std::pair<Value, Value>> entries;
  for (std::size_t i = 0; i + 1 < expression.children.size(); i += 2) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value key, evaluate(*expression.children[i]));
    LOCKSTEP_ASSIGN_OR_RETURN(Value value, evaluate(*expression.children[i + 1]));
    entries.emplace_back(std::move(key), std::move(value));
  }
  return make_dict(runtime_.budget, std::move(entries));
}

Result<Value> Interpreter::evaluate_compare(const Expression& expression) {
  LOCKSTEP_ASSIGN_OR_RETURN(Value left, evaluate(*expression.children[0]));
  for (std::size_t i = 0; i < expression.compares.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value right, evaluate(*expression.children[i + 1]));
    LOCKSTEP_ASSIGN_OR_RETURN(const bool holds, apply_compare(runtime_, expression.compares[i], left, right));
    if (!holds) {
      return Value::boolean(false);
    }
    left = std::move(right);
  }
  return Value::boolean(true);
}

Result<Value> Interpreter::evaluate_concatenation(const Expression& expression) {
  std::string text;
  for (const ExpressionPtr& child : expression.children) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Value value, evaluate(*child));
    LOCKSTEP_ASSIGN_OR_RETURN(const Value part, soft_text(runtime_, value));
    LOCKSTEP_RETURN_IF_ERROR(runtime_.budget.allocate(text.size() + part.as_text().size()));
    text += part.as_text();
  }
  return Value::text(std::move(text));
}

Result<Arguments> Interpreter::evaluate_arguments(const Expression& call) {
  Arguments result;
  for (std::size_t i = 1; i < call.children.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value value, evaluate(*call.children[i]));
    result.positional.push_back(std::move(value));
  }
  for (const auto& [name, argument] : call.named) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value value, evaluate(*argument));
    result.named.emplace_back(name, std::move(value));
  }
  if (call.spread) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Value more, evaluate(*call.spread));
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime_, more));
    result.positional.insert(result.positional.end(), elements.begin(), elements.end());
  }
  if (call.spread_named) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Value more, evaluate(*call.spread_named));
    if (more.dict() == nullptr) {
      return failure(fmt::format("'**' of a {}, expected a dict", type_name(more)));
    }
    for (const auto& [key, value] : more.dict()->entries) {
      const bool twice =
          !key.is_text() || std::ranges::find(result.named, key.as_text(), [](const auto& pair) { return std::string_view(pair.first); }) != result.named.end();
      if (twice) {
        return failure("'**' of a dict whose keys are no names, or names that are given already");
      }
      result.named.emplace_back(key.as_text(), value);
    }
  }
  return result;
}

Result<Value> Interpreter::evaluate_builtin(const Expression& expression, const Value* input) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression));
  return invoke(runtime_, *expression.builtin, *input, arguments);
}

/// A chain of filters whose innermost has no input of its own: that of a filter block or of a set block.
Result<Value> Interpreter::apply_filters(const Expression& filters, const Value& input) {
  Value value = input;
  if (filters.children[0]) {
    LOCKSTEP_ASSIGN_OR_RETURN(value, apply_filters(*filters.children[0], input));
  }
  return evaluate_builtin(filters, &value);
}

Result<Value> Interpreter::evaluate_call(const Expression& expression) {
  const Expression& callee = *expression.children[0];
  if (callee.kind == ExpressionKind::kAttribute) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Value self, evaluate(*callee.children[0]));
    LOCKSTEP_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression));
    if (const auto* loop = self.get<LoopState*>()) {
      return call_loop(**loop, callee.text, arguments);
    }
    if (const Builtin* method = find_method(self, callee.text)) {
      return invoke(runtime_, *method, self, arguments);
    }
    LOCKSTEP_ASSIGN_OR_RETURN(const Value value, get_attribute(runtime_, self, callee.text));
    if (const auto* undefined = value.get<Undefined>()) {
      return failure(*undefined->reason);
    }
    return failure(fmt::format("'{}' is a {}, which cannot be called", callee.text, type_name(value)));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const Value value, evaluate(callee));
  LOCKSTEP_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression));
  if (const auto* macro = value.get<MacroRef>()) {
    return call_macro(*macro->statement, arguments);
  }
  if (const auto* function = value.get<const Builtin*>()) {
    return invoke(runtime_, **function, Value::none(), arguments);
  }
  if (const auto* method = value.get<std::shared_ptr<const BoundMethod>>()) {
    return invoke(runtime_, *(*method)->method, (*method)->self, arguments);
  }
  if (const auto* undefined = value.get<Undefined>()) {
    return failure(*undefined->reason);
  }
  return failure(fmt::format("a {} cannot be called", type_name(value)));
}

Result<Value> Interpreter::call_macro(const Statement& macro, const Arguments& arguments) {
  Scope inner{.parent = &root_};  // a macro sees the template's names, not its caller's
  const std::size_t count = macro.parameters.size();
  std::vector<Value> extra;
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i < count) {
      inner.set(macro.parameters[i].name, arguments.positional[i]);
    } else {
      extra.push_back(arguments.positional[i]);
    }
  }
  std::vector<std::pair<Value, Value>> other;
  for (const auto& [name, value] : arguments.named) {
    const auto place = std::ranges::find(macro.parameters, name, &Parameter::text);
    const bool is_given = place != macro.parameters.end() && static_cast<std::size_t>(place - macro.parameters.begin()) < arguments.positional.size();
    if (is_given) {
      return failure(fmt::format("the macro '{}' got its argument '{}' twice", macro.text, name));
    }
    if (place != macro.parameters.end()) {
      inner.set(place->name, value);
    } else {
      other.emplace_back(Value::text(name), value);
    }
  }
  if ((!extra.empty() && !macro.takes_varargs) || (!other.empty() && !macro.takes_kwargs)) {
    return failure(fmt::format("the macro '{}' takes {} arguments, and got others", macro.text, count));
  }
  if (macro.takes_varargs) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value varargs, make_sequence(runtime_.budget, Sequence::Flavor::kTuple, std::move(extra)));
    inner.set(kNameVarargs, std::move(varargs));
  }
  if (macro.takes_kwargs) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value kwargs, make_dict(runtime_.budget, std::move(other)));
    inner.set(kNameKwargs, std::move(kwargs));
  }
  Scope* const caller = scope_;
  scope_ = &inner;
  Status ready;
  for (const Parameter& parameter : macro.parameters) {
    const bool is_set = std::ranges::find(inner.variables, parameter.name, [](const auto& pair) { return pair.first; }) != inner.variables.end();
    if (is_set || !ready) {
      continue;
    }
    auto value = parameter.fallback ? evaluate(*parameter.fallback) : Value::undefined(fmt::format("the parameter '{}' was not given", parameter.text));
    if (value) {
      inner.set(parameter.name, std::move(value).value());
    } else {
      ready = std::move(value).error();
    }
  }
  auto text = ready ? captured(macro.blocks[0]) : Result<std::string>(std::move(ready).error());
  scope_ = caller;
  LOCKSTEP_ASSIGN_OR_RETURN(std::string result, std::move(text));
  return Value::text(std::move(result));
}

}  // namespace lockstep::model::chat
// NOLINTEND(misc-no-recursion)
