// Builtin: one filter, test, method or function of the subset, and the tables of all.
#pragma once

#include <array>
#include <cstddef>
#include <ctime>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/core/result.hpp"
#include "model/chat_template/values/budget.hpp"
#include "model/chat_template/values/value.hpp"

namespace lockstep::model::chat {

/// What a rendering owns.      Threads  one rendering's.
struct Runtime {
  Budget budget;
  std::tm local_time{};                    ///< of strftime_now
  std::deque<NamespaceObject> namespaces;  ///< live as long as the rendering: they may refer to each other
  bool raised = false;                     ///< the error is the template's own word, by raise_exception
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// Arguments in the order of the parameters; nullptr where one was not given.
inline constexpr std::size_t kParametersMax = 5;
using Bound = std::array<const Value*, kParametersMax>;

/// Ownership  static tables.      Threads  any.
struct Builtin {
  std::string_view name;
  std::string_view parameters;  ///< "width,first,blank"
  std::size_t required = 0;     ///< that many of them must be given
  /// `self` is the value on the left; of a function, none.
  Result<Value> (*call)(Runtime&, const Value& self, const Bound&) = nullptr;
  /// Instead of `call`, where any arguments are taken.
  Result<Value> (*call_any)(Runtime&, const Value& self, const Arguments&) = nullptr;
};

/// Binds the arguments and calls.
/// Errors  kInvalidArgument: too many, too few or unknown arguments; what the builtin says.
[[nodiscard]] Result<Value> invoke(Runtime& runtime, const Builtin& builtin, const Value& self, const Arguments& arguments);

/// nullptr for unknown names.
[[nodiscard]] const Builtin* find_filter(std::string_view name);
[[nodiscard]] const Builtin* find_test(std::string_view name);
[[nodiscard]] const Builtin* find_function(std::string_view name);
/// By the type of the value.
[[nodiscard]] const Builtin* find_method(const Value& self, std::string_view name);
/// Whether some type of the subset has this method, or its call fails at run time in the reference too (list.append).
[[nodiscard]] bool is_method_name(std::string_view name);
/// Python has this attribute on the value's type, and the subset has not.
[[nodiscard]] bool is_unsupported_attribute(const Value& self, std::string_view name);
/// Changes its value, which the reference's sandbox forbids.
[[nodiscard]] bool is_mutator(const Value& self, std::string_view name);
/// "a, b, c": for messages.
[[nodiscard]] std::string filter_names();
[[nodiscard]] std::string test_names();
[[nodiscard]] std::string method_names();

// The parts of the tables.
[[nodiscard]] std::span<const Builtin> text_filters();
[[nodiscard]] std::span<const Builtin> number_filters();
[[nodiscard]] std::span<const Builtin> sequence_filters();
[[nodiscard]] std::span<const Builtin> select_filters();
[[nodiscard]] std::span<const Builtin> all_tests();
[[nodiscard]] std::span<const Builtin> text_methods();
[[nodiscard]] std::span<const Builtin> container_methods(const Value& self);
[[nodiscard]] std::span<const Builtin> all_functions();

/// A failure that the conversation or the template is to blame for.
[[nodiscard]] Error failure(std::string message);

}  // namespace lockstep::model::chat
