#include "device/cuda/streams/cuda_signal.hpp"

#include <atomic>
#include <chrono>
#include <thread>

#include "device/cuda/memory/device_memory.hpp"
#include "device/cuda/streams/cuda_stream.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::cuda {

Result<std::shared_ptr<SignalState>> SignalState::create(const CudaContext& context) {
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer word, allocate_pinned(context, sizeof(std::uint32_t)));
  return std::shared_ptr<SignalState>(new SignalState(std::move(word)));
}

void SignalState::arm() {
  const std::scoped_lock lock(mutex_);
  if (failing_ && fired_ == armed_) {
    failing_ = false;  // of an earlier use; its waiters keep the points that carry it
  }
  ++armed_;
  failure_last_ = failing_ ? armed_ : failure_last_;
}

void SignalState::publish(std::uint64_t fired) {
  fired_ = fired;
  // The device reads it: what was written before has to be seen by work that the wait lets through.
  std::atomic_ref(*word()).store(static_cast<std::uint32_t>(fired), std::memory_order_release);
}

void SignalState::fire(Status status) {
  const std::scoped_lock lock(mutex_);
  LOCKSTEP_CHECK(fired_ < armed_, "a signal was fired {} times, and armed no more often", fired_ + 1);
  if (!status && !failing_) {
    failing_ = true;
    failure_ = std::move(status).error();
    failure_first_ = fired_ + 1;
    failure_last_ = armed_;
  }
  publish(fired_ + 1);
}

void SignalState::abandon() {
  const std::scoped_lock lock(mutex_);
  if (fired_ < armed_ && !failing_) {
    failure_ = Error{ErrorCode::kCancelled, "a signal was destroyed before it was fired"};
    failure_first_ = fired_ + 1;
    failure_last_ = armed_;
  }
  publish(armed_);
}

std::uint64_t SignalState::armed() const {
  const std::scoped_lock lock(mutex_);
  return armed_;
}

bool SignalState::reached(std::uint64_t point) const {
  const std::scoped_lock lock(mutex_);
  return fired_ >= point;
}

Status SignalState::status_at(std::uint64_t point) const {
  const std::scoped_lock lock(mutex_);
  if (failure_ && point >= failure_first_ && point <= failure_last_) {
    return *failure_;
  }
  return {};
}

bool CudaWaitable::reached_within(Duration limit) {
  const TimePoint until = std::chrono::steady_clock::now() + limit;
  while (!query()) {
    if (std::chrono::steady_clock::now() >= until) {
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

Status CudaSignalEvent::wait(const Deadline& deadline) {
  const std::uint64_t point = state_->armed();
  while (!state_->reached(point)) {
    LOCKSTEP_RETURN_IF_ERROR(deadline.check());
    std::this_thread::yield();
  }
  return state_->status_at(point);
}

void CudaSignalEvent::hold_back(CudaStream& stream) {
  stream.await(state_, state_->armed());
}

}  // namespace lockstep::device::cuda
