// Clock, Watch and Deadline: what every blocking call of lockstep takes.
#pragma once

#include <chrono>

#include "lockstep/core/result.hpp"

namespace lockstep {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::steady_clock::time_point;

/// Where time comes from, so that tests need no sleeps.      Threads  any.
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual TimePoint now() const = 0;

 protected:
  Clock() = default;
};

/// std::chrono::steady_clock.
class SteadyClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return std::chrono::steady_clock::now(); }
  /// The one shared instance: it has no state.
  static const SteadyClock& instance();
};

/// Someone who knows more about a wait than its time limit: the failure detector, a shutdown request.
/// Threads  `failure` and `last_progress` are called from waiting threads, often: atomics only, no lock, no allocation when all is well.
class Watch {
 public:
  virtual ~Watch() = default;
  /// An error ends the wait at once (kPeerLost, kCancelled, kDiverged); success lets it go on.
  [[nodiscard]] virtual Status failure() const = 0;
  /// When a peer was last seen to make progress; the time limit counts from there, so that a long prefill elsewhere is not a failure.
  [[nodiscard]] virtual TimePoint last_progress() const = 0;

 protected:
  Watch() = default;
};

/// How long a blocking call may take. A value type; the Watch, where there is one, is borrowed and outlives it.
class Deadline {
 public:
  /// Expires `limit` after now, or after the watch's last progress, whichever is later.
  static Deadline after(Duration limit, const Watch* watch = nullptr, const Clock& clock = SteadyClock::instance());

  /// Success: keep waiting. kTimeout: the limit passed. Else what the watch said.
  [[nodiscard]] Status check() const;
  /// When to look again at the latest: min(expiry, now + 5 ms when a watch could end the wait early).
  [[nodiscard]] TimePoint next_check() const;
  [[nodiscard]] Duration limit() const { return limit_; }

 private:
  Deadline(Duration limit, TimePoint start, const Watch* watch, const Clock& clock) : limit_(limit), start_(start), watch_(watch), clock_(&clock) {}
  [[nodiscard]] TimePoint expiry() const;

  Duration limit_;
  TimePoint start_;
  const Watch* watch_;
  const Clock* clock_;
};

}  // namespace lockstep
