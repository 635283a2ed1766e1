// What both microbatchers share: options, errors, one item, the timer. Use through lockstep/microbatcher.hpp.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>

#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep {

/// Why a microbatcher did not give an item to the batch function, or its results to the items.
/// kResourceExhausted: max_pending items wait already; try later.      kCancelled: it was stopped or destroyed.
/// kInternal: the batch function returned another number of results than it got items.
class MicrobatcherError : public std::runtime_error {
 public:
  MicrobatcherError(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

/// Tells the time and calls back later; replaced by tests, which then decide when time passes.
/// Threads  the microbatcher serialises its calls; `on_expiry` may be called on any thread, but never from inside `arm` or `cancel`.
class BatchTimer {
 public:
  virtual ~BatchTimer() = default;
  BatchTimer(const BatchTimer&) = delete;
  BatchTimer& operator=(const BatchTimer&) = delete;
  [[nodiscard]] virtual TimePoint now() const = 0;
  /// Calls `on_expiry` once when `now` has reached `when`; what was armed before is forgotten, though its call may be on its way already.
  virtual void arm(TimePoint when, std::function<void()> on_expiry) = 0;
  virtual void cancel() = 0;

 protected:
  BatchTimer() = default;
};

struct MicrobatcherOptions {
  std::size_t max_batch_size = 32;                                 ///< items given to one call of the batch function, at most
  Duration batch_wait_timeout = std::chrono::microseconds(2'000);  ///< how long the first item of a batch waits for others; 0 to 24 h
  std::string name = "microbatcher";                               ///< for error messages
  std::size_t max_pending = 4096;                                  ///< items accepted and not yet given to the batch function; one more is refused
  /// While no batch runs, an item leaves at once, with what came before the executor got to it: batches form while another runs, and the timeout is not used.
  /// Off: the seed's behaviour, a batch leaves when it is full or when its first item has waited the timeout.
  bool dispatch_when_idle = true;
  std::shared_ptr<BatchTimer> timer{};  ///< null: a timer on the executor. Shared by the microbatcher and the test that turns it.
};

/// Errors  throws std::invalid_argument naming the option, its value and what is allowed.
void check_microbatcher_options(const MicrobatcherOptions& options);

/// What became of one item. A batch function may return one for each item, so that one item's failure is its own.
template <typename Out>
using BatchOutcome = std::variant<Out, std::exception_ptr>;

/// One submitted item: what was given, when, and what came of it. A microbatcher keeps its way to the submitter beside it.
template <typename In, typename Out>
struct BatchItem {
  In item;                                     ///< moved out when its batch leaves
  TimePoint submitted{};                       ///< when it was accepted
  std::optional<BatchOutcome<Out>> outcome{};  ///< set when it has ended
};

}  // namespace lockstep
