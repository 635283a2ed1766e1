// Result, Status and Error: how every fallible function of lockstep reports failure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace lockstep {

/// What the caller does next. A new code needs a caller that acts differently on it.
enum class ErrorCode {
  kInvalidArgument,    ///< the input is wrong: fix the request, the file or the option
  kResourceExhausted,  ///< a limit was reached: try again later
  kTimeout,            ///< a deadline passed; of a collective: leave the group
  kPeerLost,           ///< a peer is gone: leave the group
  kDiverged,           ///< the ranks disagree about the step: leave the group
  kCancelled,          ///< the caller asked for it
  kUnsupported,        ///< well formed, but not something this build can do
  kInternal,           ///< our own bug, or the machine's
};

/// The code's stable name ("invalid_argument"), for logs and wire formats.
[[nodiscard]] std::string_view error_code_name(ErrorCode code);

/// One failure. The message names the value, what was expected and what to do; it is written once, where it was decided.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::optional<int> rank{};  ///< the rank at fault, where one is known
};

/// A T or an Error; spelled like C++23's std::expected so that a later switch is an alias.
/// Cost    no allocation beyond T's and the message's.      Threads  a value type: as safe as T.
template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit by design
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit by design

  [[nodiscard]] bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Error& error() & { return std::get<1>(state_); }
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design

  [[nodiscard]] bool has_value() const { return !error_.has_value(); }
  explicit operator bool() const { return has_value(); }
  void value() const {}
  Error& error() & { return *error_; }
  const Error& error() const& { return *error_; }
  Error&& error() && { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace lockstep

#define LOCKSTEP_CONCAT_INNER(a, b) a##b
#define LOCKSTEP_CONCAT(a, b) LOCKSTEP_CONCAT_INNER(a, b)

/// Passes an error up: `LOCKSTEP_RETURN_IF_ERROR(file.read());`
#define LOCKSTEP_RETURN_IF_ERROR(expression)                     \
  do {                                                           \
    if (auto lockstep_status = (expression); !lockstep_status) { \
      return std::move(lockstep_status).error();                 \
    }                                                            \
  } while (false)

/// Declares or assigns the value, or passes the error up: `LOCKSTEP_ASSIGN_OR_RETURN(auto config, read_config(path));`
#define LOCKSTEP_ASSIGN_OR_RETURN(target, expression) LOCKSTEP_ASSIGN_OR_RETURN_IMPL(LOCKSTEP_CONCAT(lockstep_result_, __LINE__), target, expression)
#define LOCKSTEP_ASSIGN_OR_RETURN_IMPL(result, target, expression) \
  auto result = (expression);                                      \
  if (!result) {                                                   \
    return std::move(result).error();                              \
  }                                                                \
  target = std::move(result).value()
