// Interpreter: renders a program once.
#pragma once

#include <ctime>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/core/result.hpp"
#include "model/chat_template/builtins/builtin.hpp"
#include "model/chat_template/evaluation/loop_state.hpp"
#include "model/chat_template/syntax/ast.hpp"

namespace lockstep::model::chat {

/// One rendering.      Ownership  borrows the program.      Threads  one.
class Interpreter {
 public:
  Interpreter(const Program& program, const std::tm& local_time);
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// A variable that the template sees; names that it does not use cost nothing.      Errors  those of to_value.
  [[nodiscard]] Status set_variable(std::string_view name, const TemplateValue& value);
  /// Errors  kInvalidArgument, see ChatTemplate::render.
  [[nodiscard]] Result<std::string> run();

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // statements.cpp
  Result<Flow> execute(const Block& block);
  Result<Flow> execute(const Statement& statement);
  Result<Flow> execute_if(const Statement& statement);
  Result<Flow> execute_scoped(const Statement& statement);
  Status execute_set_block(const Statement& statement);
  Status execute_filter(const Statement& statement);
  Status assign(const Target& target, const Value& value, Scope& scope);
  Status write(std::string_view text);
  Result<std::string> captured(const Block& block);
  Error placed(Error error, int line);

  // loops.cpp
  Result<Flow> execute_for(const Statement& statement);
  Result<bool> prepare(LoopState& loop, std::size_t count);
  Result<Value> loop_attribute(LoopState& loop, std::string_view name);
  Result<Value> call_loop(LoopState& loop, std::string_view method, const Arguments& arguments);

  // expressions.cpp
  Result<Value> evaluate(const Expression& expression);
  Result<Value> evaluate_kind(const Expression& expression);
  Result<Value> evaluate_name(const Expression& expression);
  Result<Value> evaluate_elements(const Expression& expression);
  Result<Value> evaluate_dict(const Expression& expression);
  Result<Value> evaluate_compare(const Expression& expression);
  Result<Value> evaluate_concatenation(const Expression& expression);
  Result<Value> evaluate_call(const Expression& expression);
  Result<Value> evaluate_builtin(const Expression& expression, const Value* input);
  Result<Value> apply_filters(const Expression& filters, const Value& input);
  Result<Arguments> evaluate_arguments(const Expression& call);
  Result<Value> call_macro(const Statement& macro, const Arguments& arguments);

  const Program& program_;
  Runtime runtime_;
  Scope root_;
  Scope* scope_ = &root_;
  std::string output_;
  std::string* out_ = &output_;
  std::deque<LoopState> loops_;
  int depth_ = 0;
  bool placed_ = false;  ///< the error on its way up already names its line
};

}  // namespace lockstep::model::chat
