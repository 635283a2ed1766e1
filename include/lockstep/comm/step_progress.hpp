// StepProgress and StepSignal: what the step thread shows to heartbeats and health, and what wakes it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "lockstep/core/deadline.hpp"

namespace lockstep::comm {

/// What the step thread is doing. kSleeping and kStarting excuse a lack of progress; kWaiting says "held up by a peer", kComputing "by myself".
enum class StepPhase : std::uint8_t { kStarting, kSleeping, kComputing, kAgreeing, kDispatching, kCombining, kStopped };
[[nodiscard]] std::string_view step_phase_name(StepPhase phase);
/// True for the phases in which the thread waits for peers.
[[nodiscard]] constexpr bool waits_for_peers(StepPhase phase) {
  return phase == StepPhase::kAgreeing || phase == StepPhase::kDispatching || phase == StepPhase::kCombining;
}

/// One moment of the step thread, as carried by heartbeats.
struct ProgressReport {
  std::uint64_t ticks = 0;  ///< advances with every stage: equal ticks in two reports mean no progress
  std::int64_t step = 0;
  std::int32_t layer = -1;  ///< -1 outside the layers
  StepPhase phase = StepPhase::kStarting;
};

/// Written by the step thread (and its streams' tasks), read by any.      Cost  a few relaxed stores per stage.      Threads  one writer at a time, any
/// readers.
class StepProgress {
 public:
  void advance(std::int64_t step, std::int32_t layer, StepPhase phase) {
    step_.store(step, std::memory_order_relaxed);
    layer_.store(layer, std::memory_order_relaxed);
    phase_.store(phase, std::memory_order_relaxed);
    ticks_.fetch_add(1, std::memory_order_release);
  }
  /// The fields are read one by one: they may belong to neighbouring moments, which is good enough for a report.
  [[nodiscard]] ProgressReport report() const {
    ProgressReport result;
    result.ticks = ticks_.load(std::memory_order_acquire);
    result.step = step_.load(std::memory_order_relaxed);
    result.layer = layer_.load(std::memory_order_relaxed);
    result.phase = phase_.load(std::memory_order_relaxed);
    return result;
  }

 private:
  std::atomic<std::uint64_t> ticks_{0};
  std::atomic<std::int64_t> step_{0};
  std::atomic<std::int32_t> layer_{-1};
  std::atomic<StepPhase> phase_{StepPhase::kStarting};
};

/// Tells all other members that step `step` of `epoch` begins, so that sleepers enter it. The peer channel is one; tests have their own.
/// Threads  any; never blocks.
class WakeSender {
 public:
  virtual ~WakeSender() = default;
  virtual void broadcast_wake(std::int32_t epoch, std::int64_t step) = 0;

 protected:
  WakeSender() = default;
};

/// Receives the peers' wakes; the engine is one.      Threads  called on the Asio thread; never blocks.
class WakeReceiver {
 public:
  virtual ~WakeReceiver() = default;
  virtual void on_wake(std::int32_t from, std::int32_t epoch, std::int64_t step) = 0;

 protected:
  WakeReceiver() = default;
};

}  // namespace lockstep::comm
