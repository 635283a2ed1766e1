// MicroBatchContext and AdaptiveMicroBatchContext: micro-batches with the outputs that they leave.
#pragma once

#include <algorithm>
#include <any>
#include <cstddef>
#include <mutex>
#include <optional>
#include <ranges>
#include <utility>
#include <vector>

#include "lockstep/micro_batch/micro_batch_sequence.hpp"

namespace lockstep {

/// `Output` is what one micro-batch leaves; std::any where they differ.
/// Ownership  the outputs, until they are gathered.      Threads  record: any. gather: one, when all are recorded (after the barrier).
template <typename Output = std::any>
class MicroBatchContext : public MicroBatchSequence {
 public:
  explicit MicroBatchContext(const MicroBatchOptions& options) : MicroBatchContext(options, Adaptation{}) {}
  ~MicroBatchContext() override { close(); }

  /// The output of the micro-batch that this thread is in.      Errors  throws std::logic_error: it is in none; a second output for one micro-batch.
  void record_output(Output output) { record_output(std::move(output), current_index()); }
  /// The output of micro-batch `index`, in any order; from a stream's task too. A second one marks the micro-batch FAILED; the first is kept.
  void record_output(Output output, std::int32_t index) {
    const std::scoped_lock lock(outputs_mutex_);
    note_output(index);
    const auto slot = static_cast<std::size_t>(index);
    try {
      if (slot >= outputs_.size()) {
        outputs_.resize(std::max(slot + 1, static_cast<std::size_t>(num_micro_batches())));
      }
      outputs_[slot].emplace(std::move(output));
    } catch (...) {  // what moving an Output throws
      lose_output(index);
      throw;
    }
  }
  /// Waits for the streams, then moves the outputs out, in batch order whatever the order of recording. Once per batch.
  /// Errors  throws std::logic_error naming the micro-batches without output, which become FAILED; std::runtime_error: a stream's task failed.
  [[nodiscard]] std::vector<Output> gather_outputs() {
    std::vector<Output> gathered;
    gathered.reserve(static_cast<std::size_t>(num_micro_batches()));
    take_outputs([&gathered](Output& output) { gathered.push_back(std::move(output)); });
    return gathered;
  }
  /// The elements of all outputs in batch order, where outputs are ranges: the concatenation over dimension 0 of row-major tensors.
  [[nodiscard]] auto gather_and_concat() requires std::ranges::input_range<Output&> {
    std::vector<std::ranges::range_value_t<Output>> joined;
    take_outputs([&joined](Output& output) {
      for (auto&& element : output) {
        if constexpr (std::ranges::view<Output>) {
          joined.push_back(element);  // it is another's
        } else {
          joined.push_back(std::move(element));
        }
      }
    });
    return joined;
  }
  void reset(std::int32_t batch_size) override {
    MicroBatchSequence::reset(batch_size);
    drop_outputs();
  }
  void reset(const MicroBatchSplit& split) override {
    MicroBatchSequence::reset(split);
    drop_outputs();
  }

 protected:
  MicroBatchContext(const MicroBatchOptions& options, Adaptation adaptation) : MicroBatchSequence(options, std::move(adaptation)) {
    outputs_.resize(static_cast<std::size_t>(num_micro_batches()));
  }

 private:
  void drop_outputs() {
    for (std::optional<Output>& output : outputs_) {
      output.reset();
    }
  }
  template <typename Take>
  void take_outputs(Take take) {
    check_outputs();
    const std::scoped_lock lock(outputs_mutex_);
    for (std::size_t i = 0; i < static_cast<std::size_t>(num_micro_batches()); ++i) {
      take(*outputs_[i]);
      outputs_[i].reset();
    }
  }

  std::mutex outputs_mutex_;
  std::vector<std::optional<Output>> outputs_;  ///< by index
};
MicroBatchContext(const MicroBatchOptions&)->MicroBatchContext<>;

struct AdaptiveMicroBatchOptions {
  std::int32_t batch_size = 0;
  std::int32_t initial_micro_batch = 8;
  double target_time_ms = 10;
  double memory_threshold = 0.8;
  std::int32_t min_micro_batch = 1;
  std::int32_t max_micro_batch = 64;
  int num_threads = 1;
  StreamManager* stream_manager = nullptr;
  StreamPolicy stream_policy = StreamPolicy::round_robin;
  MemoryProbe memory_probe{};  ///< null: host_memory_probe()
  bool narrow_forward_context = true;
  NarrowAttentionFn narrow_attention{};
  const Clock* clock = nullptr;
};

/// A context whose micro-batch size follows time and memory: after each micro-batch the rows that remain are split again at the size that MicroBatchSizer
/// chose. The end of a micro-batch waits for what its body enqueued on its streams, for its time is not known before.
/// In a step that contains a collective the size is the agreement's; there this class is for proposals only.
/// Errors  as MicroBatchContext, and std::invalid_argument as MicroBatchSizer; `iterate` with a priority throws std::logic_error: the remaining rows are one
/// run.
template <typename Output = std::any>
class AdaptiveMicroBatchContext : public MicroBatchContext<Output> {
 public:
  explicit AdaptiveMicroBatchContext(const AdaptiveMicroBatchOptions& options)
      : MicroBatchContext<Output>({.batch_size = options.batch_size,
                                   .micro_batch_size = options.initial_micro_batch,
                                   .num_threads = options.num_threads,
                                   .stream_manager = options.stream_manager,
                                   .min_micro_batch = options.min_micro_batch,
                                   .max_micro_batch = options.max_micro_batch,
                                   .stream_policy = options.stream_policy,
                                   .narrow_forward_context = options.narrow_forward_context,
                                   .narrow_attention = options.narrow_attention,
                                   .clock = options.clock},
                                  {.sizer = MicroBatchSizer({.initial_micro_batch = options.initial_micro_batch,
                                                             .min_micro_batch = options.min_micro_batch,
                                                             .max_micro_batch = options.max_micro_batch,
                                                             .target_time_ms = options.target_time_ms,
                                                             .memory_threshold = options.memory_threshold}),
                                   .memory_probe = options.memory_probe ? options.memory_probe : host_memory_probe()}) {}
};
AdaptiveMicroBatchContext(const AdaptiveMicroBatchOptions&)->AdaptiveMicroBatchContext<>;

}  // namespace lockstep
