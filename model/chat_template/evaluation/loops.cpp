// for, and the variable `loop`.
#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/evaluation/interpreter.hpp"
#include "model/chat_template/values/compare.hpp"

// NOLINTBEGIN(misc-no-recursion): as in statements.cpp
namespace lockstep::model::chat {
namespace {

/// What a loop keeps until the rendering ends, as a value may refer to it: its state, and the first node of its deque, which is there before any element.
constexpr std::size_t kLoopBytes = sizeof(LoopState) + 576;

}  // namespace

/// Lets `count` elements pass the filter; false where there are fewer. As late as possible: a filter may read what the loop's body sets.
Result<bool> Interpreter::prepare(LoopState& loop, std::size_t count) {
  while (loop.prepared.size() < count) {
    if (loop.next == loop.elements.size()) {
      return false;
    }
    Value element = loop.elements[loop.next++];
    if (const Expression* filter = loop.statement->expressions[1].get()) {
      Scope inner{.parent = loop.outer};
      LOCKSTEP_RETURN_IF_ERROR(assign(loop.statement->targets[0], element, inner));
      Scope* const body_scope = scope_;
      scope_ = &inner;
      auto passes = evaluate(*filter);
      scope_ = body_scope;
      LOCKSTEP_ASSIGN_OR_RETURN(const Value verdict, std::move(passes));
      if (!is_true(verdict)) {
        continue;
      }
    }
    loop.prepared.push_back(std::move(element));
  }
  return true;
}

Result<Interpreter::Flow> Interpreter::execute_for(const Statement& statement) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Value source, evaluate(*statement.expressions[0]));
  LOCKSTEP_RETURN_IF_ERROR(runtime_.budget.allocate(kLoopBytes));
  LoopState& loop = loops_.emplace_back();
  LOCKSTEP_ASSIGN_OR_RETURN(loop.elements, elements_of(runtime_, source));
  loop.statement = &statement;
  loop.outer = scope_;
  Flow flow = Flow::kNext;
  bool was_completed = false;  // `else` runs unless some iteration came to its end: one left by `continue` or `break` does not count in the reference
  while (flow != Flow::kBreak) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool has_next, prepare(loop, 1));
    if (!has_next) {
      break;
    }
    loop.previous = std::move(loop.current);
    loop.current = std::move(loop.prepared.front());
    loop.prepared.pop_front();
    ++loop.index;
    Scope inner{.parent = loop.outer};
    inner.set(kNameLoop, Value(Value::Data(&loop)));
    LOCKSTEP_RETURN_IF_ERROR(assign(statement.targets[0], *loop.current, inner));
    scope_ = &inner;
    auto done = execute(statement.blocks[0]);
    scope_ = loop.outer;
    LOCKSTEP_ASSIGN_OR_RETURN(flow, std::move(done));
    was_completed |= flow == Flow::kNext;
  }
  // A value may still refer to the loop: nothing is left in it that could ask for the scopes that are gone.
  loop.next = 0;
  loop.elements = std::vector<Value>();
  if (!was_completed && statement.blocks.size() > 1) {
    Scope inner{.parent = scope_};
    scope_ = &inner;
    auto done = execute(statement.blocks[1]);
    scope_ = inner.parent;
    return done;
  }
  return Flow::kNext;
}

Result<Value> Interpreter::loop_attribute(LoopState& loop, std::string_view name) {
  const auto total = [&]() -> Result<std::int64_t> {
    LOCKSTEP_RETURN_IF_ERROR(prepare(loop, loop.prepared.size() + loop.elements.size() - loop.next + 1));
    return loop.index + 1 + static_cast<std::int64_t>(loop.prepared.size());
  };
  if (name == "index" || name == "index0") {
    return Value::integer(loop.index + (name == "index" ? 1 : 0));
  }
  if (name == "first") {
    return Value::boolean(loop.index == 0);
  }
  if (name == "last") {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool has_next, prepare(loop, 1));
    return Value::boolean(!has_next);
  }
  if (name == "length" || name == "revindex" || name == "revindex0") {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t length, total());
    return Value::integer(name == "length" ? length : length - loop.index - (name == "revindex0" ? 1 : 0));
  }
  if (name == "previtem") {
    return loop.previous ? *loop.previous : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool has_next, prepare(loop, 1));
    return has_next ? loop.prepared.front() : Value::undefined("there is no next item");
  }
  if (name == "depth" || name == "depth0") {
    return Value::integer(name == "depth" ? 1 : 0);  // more only in recursive loops
  }
  if (name == "cycle" || name == "changed") {
    return failure(fmt::format("'loop.{}' can only be called", name));
  }
  return Value::undefined(fmt::format("'loop' has no '{}'", name));
}

Result<Value> Interpreter::call_loop(LoopState& loop, std::string_view method, const Arguments& arguments) {
  if (!arguments.named.empty()) {
    return failure(fmt::format("'loop.{}' takes no arguments with names", method));
  }
  if (method == "cycle") {
    if (arguments.positional.empty()) {
      return failure("'loop.cycle' of nothing");
    }
    return arguments.positional[static_cast<std::size_t>(loop.index) % arguments.positional.size()];
  }
  LOCKSTEP_ASSIGN_OR_RETURN(Value now, make_sequence(runtime_.budget, Sequence::Flavor::kTuple, arguments.positional));
  if (loop.last_changed) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool same, equal(runtime_.budget, *loop.last_changed, now));
    if (same) {
      return Value::boolean(false);
    }
  }
  loop.last_changed = std::move(now);
  return Value::boolean(true);
}

}  // namespace lockstep::model::chat
// NOLINTEND(misc-no-recursion)
