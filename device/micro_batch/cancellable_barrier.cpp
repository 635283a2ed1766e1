#include "device/micro_batch/cancellable_barrier.hpp"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

namespace lockstep {

namespace {
/// A waiter looks at its deadline this often even without a notice, because the deadline's clock may be a test's and its watch may change its mind.
constexpr Duration kLookAgain = std::chrono::milliseconds(50);
}  // namespace

Status CancellableBarrier::arrive_and_wait(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  if (cancelled_) {
    return cancelled_error();
  }
  const std::uint64_t phase = phase_;
  if (++arrived_ == parties_) {
    arrived_ = 0;
    ++phase_;
    changed_.notify_all();
    return {};
  }
  while (phase_ == phase && !cancelled_) {
    // Checked without the lock: a watch is foreign code.
    lock.unlock();
    Status in_time = deadline.check();
    const TimePoint until = std::min(deadline.next_check(), std::chrono::steady_clock::now() + kLookAgain);
    lock.lock();
    const bool over = phase_ != phase || cancelled_;
    if (!over && !in_time) {
      cancelled_ = true;
      reason_ = fmt::format("a thread gave up at the barrier, {} of {} had arrived: {}", arrived_, parties_, in_time.error().message);
      changed_.notify_all();
      return in_time;
    }
    changed_.wait_until(lock, until, [this, phase] { return phase_ != phase || cancelled_; });
  }
  // A phase that all have reached counts, also when it was cancelled right after.
  return phase_ != phase ? Status{} : Status{cancelled_error()};
}

void CancellableBarrier::cancel(std::string_view reason) {
  const std::scoped_lock lock(mutex_);
  if (!cancelled_) {
    cancelled_ = true;
    reason_ = reason;
    changed_.notify_all();
  }
}

void CancellableBarrier::reset() {
  const std::scoped_lock lock(mutex_);
  cancelled_ = false;
  arrived_ = 0;
  reason_.clear();
}

Error CancellableBarrier::cancelled_error() const {
  return {ErrorCode::kCancelled, reason_};
}

}  // namespace lockstep
