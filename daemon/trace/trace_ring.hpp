// TraceRing: the newest spans of this rank's steps, written by the step thread and read while it goes on.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::daemon {

/// Spans of some 3,000 steps of a small model, of 70 of one with 94 layers in two micro-batches.
inline constexpr std::size_t kTraceSpans = 1U << 16;

/// For so long after a trace was taken, times of the device's streams are taken too, for the next one.
inline constexpr Duration kTraceWatched = std::chrono::seconds(60);

/// A ring of fixed size without locks: the writer never waits, and a reader leaves out what was overwritten while it read.
/// Ownership  its own memory, 48 bytes a span.      Threads  push and complete: one thread; all else: any.
class TraceRing {
 public:
  /// `capacity`: spans, a power of 2.
  explicit TraceRing(std::size_t capacity = kTraceSpans);

  /// Cost  a few stores; allocates nothing.
  void push(const scheduler::SpanRecord& record);
  /// All spans of `step` were pushed.
  void complete(std::int64_t step) { completed_.store(step, std::memory_order_release); }
  /// The spans of the newest `steps` complete steps that are held whole, in the order of their pushing.      Cost  O(capacity) and its memory.
  [[nodiscard]] std::vector<scheduler::SpanRecord> last_steps(std::int64_t steps) const;
  /// Whether last_steps was asked in the kTraceWatched before `now`.
  [[nodiscard]] bool is_watched(TimePoint now) const;

 private:
  static constexpr std::int64_t kNever = -1;

  /// `sequence` is the span's number from 1 while its words belong together, else 0.
  struct Slot {
    std::atomic<std::uint64_t> sequence{0};
    std::atomic<std::int64_t> begin_ns{0};
    std::atomic<std::int64_t> end_ns{0};
    std::atomic<std::int64_t> off_core_ns{0};
    std::atomic<std::int64_t> step{0};
    std::atomic<std::uint64_t> tags{0};
  };
  /// False: it was overwritten.
  [[nodiscard]] bool read(std::uint64_t index, scheduler::SpanRecord& record) const;

  std::vector<Slot> slots_;
  std::uint64_t mask_;
  std::atomic<std::uint64_t> written_{0};
  std::atomic<std::int64_t> completed_{-1};
  mutable std::atomic<std::int64_t> asked_ns_{kNever};  ///< last_steps
};

}  // namespace lockstep::daemon
