// EngineInbox: what other threads tell the step thread, and where it sleeps.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "lockstep/comm/step_plan.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/scheduler/request.hpp"
#include "scheduler/batch/sequence.hpp"

namespace lockstep::scheduler {

/// Ownership  holds submitted sequences until the step thread takes them.      Threads  any; no lock is held while a step runs.
class EngineInbox {
 public:
  explicit EngineInbox(std::int32_t max_pending) : max_pending_(max_pending) {}

  /// Takes all of `sequences` or none.
  /// Errors  kResourceExhausted at max_pending open requests; kInvalidArgument: more than that at once, or an id that is open; kCancelled once closed.
  [[nodiscard]] Status submit(std::span<std::unique_ptr<Sequence>> sequences);
  /// Asks for the end of `id`, which will be told `reason`.
  void end(RequestId id, FinishReason reason);
  /// Closes admission for good; requests already in are still taken.
  void close();
  void wish(comm::ControlWish wish);
  /// `id` is no longer open.
  void request_ended(RequestId id);

  struct End {
    RequestId id = 0;
    FinishReason reason = FinishReason::kCancelled;
  };
  struct Messages {
    std::vector<std::unique_ptr<Sequence>> submitted;
    std::vector<End> ends;
    comm::ControlWish wish = comm::ControlWish::kNone;
  };
  /// Takes everything; reuses the vectors' memory.
  void take(Messages& messages);

  // Sleep and wake. A step is entered when its agreement starts; wakes of steps already entered are old news.
  void set_epoch(std::int32_t epoch);
  void enter(std::int64_t step);
  void on_wake(std::int32_t from, std::int32_t epoch, std::int64_t step);
  /// Sleeps until there is a message, a wake for the step after the last entered, or `until`.
  /// Errors  kDiverged after a wake for a later step: its sender has passed an agreement that this rank never entered.
  [[nodiscard]] Status sleep(TimePoint until);
  /// True when a wake for the step after the last entered has come.      Errors  as sleep.
  [[nodiscard]] Result<bool> woken();

  [[nodiscard]] std::int32_t open_requests() const;

 private:
  [[nodiscard]] bool has_messages() const { return !submitted_.empty() || !ends_.empty() || wish_changed_; }

  const std::int32_t max_pending_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<End> ends_;
  comm::ControlWish wish_ = comm::ControlWish::kNone;
  bool wish_changed_ = false;
  bool closed_ = false;
  std::unordered_set<RequestId> open_;
  std::int32_t epoch_ = 0;
  std::int64_t entered_step_ = -1;
  std::int64_t woken_step_ = -1;
  std::optional<Error> wake_error_;
};

}  // namespace lockstep::scheduler
