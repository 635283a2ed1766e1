// Timeline: how far a host stream has come, and where on the way it failed.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stop_token>

#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::device::host {

/// A stream counts what is enqueued: 1, 2, 3, ... A point is such a number, and is reached when all work up to it has run.
/// Ownership  shared by the stream and the events recorded on it, so that an event may be asked after its stream is gone.      Threads  safe.
class Timeline {
 public:
  /// `spin_rounds`: how often a waiter looks before it sleeps; 0 where there is no second core that could make progress meanwhile.
  explicit Timeline(int spin_rounds) : spin_rounds_(spin_rounds) {}

  [[nodiscard]] std::uint64_t submitted() const { return submitted_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t completed() const { return completed_.load(std::memory_order_acquire); }
  [[nodiscard]] bool reached(std::uint64_t point) const { return completed() >= point; }

  /// Announces one more piece of work.
  void submit();
  /// The oldest piece of work has run (or was skipped).
  void complete();
  /// Marks the stream as failed from the piece of work after `completed()` on; only the first error counts until `clear_failure`.
  void fail(Error error);
  [[nodiscard]] bool failed() const { return failed_.load(std::memory_order_acquire); }
  /// Takes the error and makes the stream usable again. Only when all submitted work has completed.
  [[nodiscard]] Status clear_failure();
  /// The stream is gone: all points count as reached; those not reached before carry kCancelled.
  void abandon(std::string_view stream_name);

  /// The error that a waiter for `point` sees. Only after the point was reached.
  [[nodiscard]] Status status_at(std::uint64_t point) const;
  /// Waits until the point is reached.      Errors  the deadline's; not the stream's.
  [[nodiscard]] Status wait(std::uint64_t point, const Deadline& deadline);
  /// The same for a while, which is no error: true when reached.
  bool reached_within(std::uint64_t point, Duration limit);
  /// The same without a deadline, ended by `stop`: false then.
  bool wait(std::uint64_t point, const std::stop_token& stop);
  /// Waits until something is submitted that has not completed; false when stopped. For the stream's own thread.
  bool wait_for_work(const std::stop_token& stop);

 private:
  /// The points from `first` to `last` carry `error`; `last` is none while the failure lasts.
  struct Failure {
    std::uint64_t first = 0;
    std::optional<std::uint64_t> last{};
    Error error{};
  };
  /// How many failures events can still be asked about after they were cleared.
  static constexpr std::size_t kFailuresKept = 8;

  template <typename Predicate>
  bool spin(Predicate predicate) const;
  void fail_locked(Error error);

  const int spin_rounds_;
  std::atomic<std::uint64_t> submitted_ = 0;
  std::atomic<std::uint64_t> completed_ = 0;
  std::atomic<bool> failed_ = false;
  mutable std::mutex mutex_;
  // `any`: its wait takes a stop token, so that destroying a stream ends the waits of its own thread, wherever they are.
  std::condition_variable_any changed_;
  std::array<Failure, kFailuresKept> failures_{};
  std::size_t failure_count_ = 0;  ///< ever; the last one is at (failure_count_ - 1) % kFailuresKept
};

}  // namespace lockstep::device::host
