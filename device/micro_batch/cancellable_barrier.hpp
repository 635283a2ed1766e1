// CancellableBarrier: std::barrier that can be called off, so that a failed thread strands no peer.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "lockstep/core/deadline.hpp"

namespace lockstep {

/// Threads  any. No thread may be inside when it is destroyed.
class CancellableBarrier {
 public:
  explicit CancellableBarrier(int parties) : parties_(parties) {}

  /// Waits until all parties have arrived; may be used again for the next phase.
  /// Errors  kCancelled: `cancel` was called, with its reason. kTimeout: the deadline passed; that cancels the barrier, for the phase cannot complete any more.
  [[nodiscard]] Status arrive_and_wait(const Deadline& deadline);
  /// Ends all waits, now and later, until `reset`. The first reason is kept.
  void cancel(std::string_view reason);
  /// Only while no thread waits.
  void reset();

 private:
  [[nodiscard]] Error cancelled_error() const;

  const int parties_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  std::uint64_t phase_ = 0;
  bool cancelled_ = false;
  std::string reason_;
};

}  // namespace lockstep
