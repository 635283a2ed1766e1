// MicroBatchSequence::State: the slots of a batch, who is in which, and what they wait for.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "device/micro_batch/cancellable_barrier.hpp"
#include "lockstep/micro_batch/micro_batch_sequence.hpp"

namespace lockstep {

/// Threads  every member below the mutex is read and written under it; a `_locked` function expects it held.
struct MicroBatchSequence::State {
  /// One micro-batch. Its address is stable: tasks on streams hold its context until they have run.
  struct Slot {
    MicroBatchInfo info;
    std::int64_t nominal_start = 0;  ///< where its rows begin on a rank that has so many
    std::int32_t nominal_size = 0;
    bool has_output = false;
    const ForwardContext* base = nullptr;  ///< what `context` was narrowed from; null: not yet
    ForwardContext context;
    DPMetadata chunk;
  };
  struct Active {
    std::thread::id thread;
    std::int32_t index = 0;
  };
  struct EventPair {
    std::unique_ptr<device::Event> compute;
    std::unique_ptr<device::Event> comm;
  };

  State(const MicroBatchOptions& given, Adaptation adaptation);

  /// Another batch, all pending.      Errors  throws std::logic_error: a micro-batch is entered.
  void start_over(const MicroBatchSplit& split);
  void split_locked(std::int32_t first_index, std::int32_t first_row, std::int32_t size);
  void order_locked(const PriorityFn& priority);
  /// The next micro-batch of the walk, or none.
  [[nodiscard]] std::optional<std::int32_t> claim();
  [[nodiscard]] Slot& slot_locked(std::int32_t index);
  void enter_locked(Slot& slot);
  void choose_streams_locked(MicroBatchInfo& info);
  void narrow_locked(Slot& slot);
  [[nodiscard]] const ForwardContext* base_of_locked(const ForwardContext* current);
  void reserve_chunks_locked(const DPMetadata& metadata);
  void forget_active_locked(std::int32_t index);
  void adapt_locked(const MicroBatchInfo& info);
  void fail_locked(MicroBatchInfo& info);
  void cancel_locked(std::string_view reason);
  void throw_if_cancelled_locked() const;
  /// Until what the body enqueued on its two streams has run; their errors stay for sync_streams.
  void wait_for_streams(const MicroBatchInfo& info);
  [[nodiscard]] Status sync_streams(const Deadline& deadline);

  const MicroBatchOptions options;
  const Clock& clock;
  const std::unique_ptr<StreamManager> own_streams;
  StreamManager& streams;
  CancellableBarrier barrier;

  mutable std::mutex mutex;
  std::optional<MicroBatchSizer> sizer;
  MemoryProbe memory_probe;
  std::int32_t batch_size = 0;
  std::int32_t micro_batch_size = 0;
  std::int32_t num_micro_batches_min = 0;
  std::deque<Slot> slots;  ///< never shrinks; the first `count` are in use
  std::int32_t count = 0;
  std::vector<std::int32_t> order;  ///< [count], indices in the order of the walk
  std::vector<double> priorities;   ///< [count], scratch
  std::int32_t next = 0;            ///< into order
  int walks_started = 0;
  std::vector<Active> active;              ///< in order of entering
  std::vector<std::thread::id> walkers;    ///< each has inline streams of its own
  std::vector<StreamHandle*> used;         ///< given to a micro-batch of this batch
  std::vector<EventPair> idle_events;      ///< for wait_for_streams
  std::vector<std::int32_t> chunk_counts;  ///< [world size], scratch
  std::size_t reserved_slots = 0;          ///< whose chunk has room for reserved_world ranks
  int reserved_world = 0;
  const ForwardContext* known_base = nullptr;  ///< a context that is not one of the slots': spares a search
  bool cancelled = false;
  std::string cancel_reason;
  std::optional<Error> stream_error;
  bool gathered = false;
};

}  // namespace lockstep
