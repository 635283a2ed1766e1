// LoopState: what `loop` is, and where a loop's next elements come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "model/chat_template/syntax/ast.hpp"
#include "model/chat_template/values/value.hpp"

namespace lockstep::model::chat {

/// The names that one block, macro call or iteration has set; names not found are looked up in `parent`, which outlives it.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> variables;

  [[nodiscard]] const Value* find(int name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent) {
      for (const auto& [key, value] : scope->variables) {
        if (key == name) {
          return &value;
        }
      }
    }
    return nullptr;
  }
  void set(int name, Value value) {
    for (auto& [key, old] : variables) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }
};

/// One running `for`.      Ownership  the rendering's: a value may refer to it after its loop has ended, and then finds no more elements.
struct LoopState {
  std::vector<Value> elements;  ///< all of the source
  std::size_t next = 0;         ///< the first that the filter, where there is one, has not seen
  const Statement* statement = nullptr;
  Scope* outer = nullptr;      ///< in which the filter is evaluated
  std::deque<Value> prepared;  ///< past the filter, not yet reached by the loop: `loop.last` has to look ahead
  std::int64_t index = -1;     ///< from 0
  std::optional<Value> previous;
  std::optional<Value> current;
  std::optional<Value> last_changed;  ///< of loop.changed
};

}  // namespace lockstep::model::chat
