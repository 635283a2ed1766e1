// MicroBatchInfo: what is known of one micro-batch, and MicroBatchStats of all of a batch.
#pragma once

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "lockstep/core/deadline.hpp"

namespace lockstep {

class StreamHandle;

enum class MicroBatchState { kPending, kRunning, kCompleted, kFailed };
[[nodiscard]] std::string_view micro_batch_state_name(MicroBatchState state);

/// One slice of a batch.      Threads  a value; a context hands out copies, or references for the time that a micro-batch is entered.
struct MicroBatchInfo {
  std::int32_t index = 0;
  std::int32_t start = 0;  ///< first row
  std::int32_t end = 0;    ///< one past the last row
  std::int32_t size = 0;   ///< rows; 0 only in contexts with num_micro_batches_min
  MicroBatchState state = MicroBatchState::kPending;
  TimePoint start_time{};                  ///< entered for the first time
  TimePoint end_time{};                    ///< completed or failed
  StreamHandle* compute_stream = nullptr;  ///< chosen when entered for the first time
  StreamHandle* comm_stream = nullptr;

  /// From entering to the end of the body; in an adaptive context also of what the body enqueued on its streams. 0 until it has ended.
  [[nodiscard]] double duration_ms() const { return end_time <= start_time ? 0.0 : std::chrono::duration<double, std::milli>(end_time - start_time).count(); }
  /// Pending → running or failed, running → completed or failed, completed → failed (its output turned out to be missing or doubled).
  /// Errors  throws std::logic_error: any other change.
  void change_state(MicroBatchState next);
};

/// Counts and times of a context's micro-batches.
struct MicroBatchStats {
  std::int32_t batch_size = 0;
  std::int32_t micro_batch_size = 0;  ///< of the next micro-batch
  std::int32_t num_micro_batches = 0;
  std::int32_t pending = 0;
  std::int32_t running = 0;
  std::int32_t completed = 0;
  std::int32_t failed = 0;
  double total_ms = 0;  ///< durations of the completed ones
  double mean_ms = 0;
  double min_ms = 0;
  double max_ms = 0;
};

/// What the threads of a context get when one of them failed, at the barrier or when they ask for their next micro-batch.
class MicroBatchCancelled : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace lockstep
