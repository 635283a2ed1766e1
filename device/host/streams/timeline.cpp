#include "device/host/streams/timeline.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace lockstep::device::host {

namespace {
/// A sleeping waiter looks again this often even without a notice, because a deadline's clock may be a test's and its watch may change its mind.
constexpr Duration kLookAgain = std::chrono::milliseconds(50);

void pause_core() {
  __builtin_ia32_pause();
}
}  // namespace

template <typename Predicate>
bool Timeline::spin(Predicate predicate) const {
  for (int round = 0; round < spin_rounds_; ++round) {
    if (predicate()) {
      return true;
    }
    pause_core();
  }
  return predicate();
}

void Timeline::submit() {
  // Written under the lock, though atomic: a waiter between its test and its sleep would miss the notice otherwise.
  const std::scoped_lock lock(mutex_);
  submitted_.fetch_add(1, std::memory_order_release);
  changed_.notify_all();
}

void Timeline::complete() {
  const std::scoped_lock lock(mutex_);
  completed_.fetch_add(1, std::memory_order_release);
  changed_.notify_all();
}

void Timeline::fail(Error error) {
  const std::scoped_lock lock(mutex_);
  fail_locked(std::move(error));
}

void Timeline::fail_locked(Error error) {
  if (failed_.load(std::memory_order_relaxed)) {
    return;
  }
  failures_[failure_count_ % kFailuresKept] = Failure{.first = completed() + 1, .last = std::nullopt, .error = std::move(error)};
  ++failure_count_;
  failed_.store(true, std::memory_order_release);
}

Status Timeline::clear_failure() {
  const std::scoped_lock lock(mutex_);
  if (!failed_.load(std::memory_order_relaxed)) {
    return {};
  }
  Failure& failure = failures_[(failure_count_ - 1) % kFailuresKept];
  failure.last = submitted();
  failed_.store(false, std::memory_order_release);
  // A number that no work has: an event recorded from here on, before any new work, must not be taken for one recorded during the failure.
  // `completed_` first: the stream's thread looks at both without the lock, and would take the step between them for work.
  completed_.fetch_add(1, std::memory_order_release);
  submitted_.fetch_add(1, std::memory_order_release);
  return failure.error;
}

void Timeline::abandon(std::string_view stream_name) {
  const std::scoped_lock lock(mutex_);
  if (completed() < submitted()) {
    fail_locked({ErrorCode::kCancelled, fmt::format("stream \"{}\" was destroyed before this work ran", stream_name)});
  }
  completed_.store(submitted(), std::memory_order_release);
  changed_.notify_all();
}

Status Timeline::status_at(std::uint64_t point) const {
  const std::scoped_lock lock(mutex_);
  const std::size_t kept = std::min(failure_count_, kFailuresKept);
  for (std::size_t i = 0; i < kept; ++i) {
    const Failure& failure = failures_[i];
    if (point >= failure.first && (!failure.last || point <= *failure.last)) {
      return failure.error;
    }
  }
  return {};
}

Status Timeline::wait(std::uint64_t point, const Deadline& deadline) {
  const auto done = [this, point] { return reached(point); };
  if (spin(done)) {
    return {};
  }
  std::unique_lock lock(mutex_);
  while (!done()) {
    // Checked without the lock: a watch is foreign code.
    lock.unlock();
    LOCKSTEP_RETURN_IF_ERROR(deadline.check());
    const TimePoint until = std::min(deadline.next_check(), std::chrono::steady_clock::now() + kLookAgain);
    lock.lock();
    changed_.wait_until(lock, until, done);
  }
  return {};
}

bool Timeline::reached_within(std::uint64_t point, Duration limit) {
  const auto done = [this, point] { return reached(point); };
  if (spin(done)) {
    return true;
  }
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, done);
}

bool Timeline::wait(std::uint64_t point, const std::stop_token& stop) {
  const auto done = [this, point] { return reached(point); };
  if (spin(done)) {
    return true;
  }
  std::unique_lock lock(mutex_);
  return changed_.wait(lock, stop, done);
}

bool Timeline::wait_for_work(const std::stop_token& stop) {
  const auto more = [this] {
    const std::uint64_t submitted_now = submitted();  // first: clear_failure moves both numbers, this one last, and must not look like work in between
    return submitted_now > completed();
  };
  if (!spin(more)) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, more);
  }
  return !stop.stop_requested();
}

}  // namespace lockstep::device::host
