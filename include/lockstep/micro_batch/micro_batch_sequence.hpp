// MicroBatchSequence: the micro-batches of one batch without their outputs. Split, order, streams, states, contexts and threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <string_view>
#include <type_traits>

#include "lockstep/core/deadline.hpp"
#include "lockstep/forward_context.hpp"
#include "lockstep/micro_batch/micro_batch_info.hpp"
#include "lockstep/micro_batch/micro_batch_options.hpp"
#include "lockstep/micro_batch/micro_batch_sizer.hpp"
#include "lockstep/micro_batch/stream_manager.hpp"

namespace lockstep {

/// Owns what the micro-batches need while they run. Leaving its scope waits for all streams that they were given.
/// Threads  `iterate`, `scope`, `wait_barrier` and the queries: any. `reset`: one, with nothing entered.
/// Errors   throws std::invalid_argument: batch_size < 0, micro_batch_size < 1, min > max, num_threads < 1 or > 4096; std::logic_error: other misuse.
/// Cost     allocates when made, on the first walk, and when `reset` asks for more micro-batches than ever; else nothing.
class MicroBatchSequence {
  struct State;

 public:
  virtual ~MicroBatchSequence();
  MicroBatchSequence(const MicroBatchSequence&) = delete;
  MicroBatchSequence& operator=(const MicroBatchSequence&) = delete;

  [[nodiscard]] std::int32_t batch_size() const;
  /// Of the next micro-batch: an adaptive context changes it.
  [[nodiscard]] std::int32_t micro_batch_size() const;
  [[nodiscard]] std::int32_t num_micro_batches() const;
  [[nodiscard]] MicroBatchInfo info(std::int32_t index) const;
  [[nodiscard]] MicroBatchStats stats() const;

  /// One micro-batch entered by one thread: its narrowed ForwardContext is current until the end of the scope. Left by an exception it is FAILED, and the
  /// context is cancelled.
  class [[nodiscard]] Scope {
   public:
    Scope(State& state, std::int32_t index, bool completes);  ///< by `scope` and `iterate` only
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    [[nodiscard]] const MicroBatchInfo& info() const { return *info_; }

   private:
    void abandon_locked(MicroBatchInfo& info, std::string_view why);

    State& state_;
    const MicroBatchInfo* info_ = nullptr;
    const ForwardContext* previous_ = nullptr;
    int exceptions_;  ///< in flight when entered: one more at the end means that it is left by a new one
    bool completes_;
    std::uint64_t enqueued_before_ = 0;
  };
  /// Enters micro-batch `index`, any number of times and from any thread (a step program, a stream's task); `complete` ends it.
  Scope scope(std::int32_t index) { return Scope(*state_, index, false); }
  void complete(std::int32_t index);

  /// The micro-batches that one thread walks: a C++ input range. With several threads each calls `iterate` once, and each micro-batch goes to one of them.
  class [[nodiscard]] Range {
   public:
    class Iterator {
     public:
      using iterator_concept = std::input_iterator_tag;
      using value_type = MicroBatchInfo;
      using difference_type = std::ptrdiff_t;
      explicit Iterator(Range& range) : range_(&range) {}
      [[nodiscard]] const MicroBatchInfo& operator*() const { return range_->scope_->info(); }
      [[nodiscard]] const MicroBatchInfo* operator->() const { return &**this; }
      Iterator& operator++() {
        range_->advance();
        return *this;
      }
      void operator++(int) { range_->advance(); }
      [[nodiscard]] bool operator==(std::default_sentinel_t /*end*/) const { return !range_->scope_; }

     private:
      Range* range_;
    };
    Range(const Range&) = delete;
    Range& operator=(const Range&) = delete;
    /// Claims and enters the first micro-batch.      Errors  throws MicroBatchCancelled, like the increment: another thread's micro-batch failed.
    [[nodiscard]] Iterator begin();
    [[nodiscard]] std::default_sentinel_t end() const { return {}; }

   private:
    friend class MicroBatchSequence;
    explicit Range(State& state) : state_(state) {}
    void advance();  ///< leaves one, claims and enters the next
    State& state_;
    std::optional<Scope> scope_;
  };
  [[nodiscard]] Range iterate() { return iterate(PriorityFn{}); }
  /// `priority` orders the walk; outputs are gathered in batch order all the same. The first of several threads decides.
  [[nodiscard]] Range iterate(const PriorityFn& priority);

  /// One micro-batch and its rows of the data that `iterate_with_data` was given.
  template <typename T>
  struct WithData {
    const MicroBatchInfo& info;
    std::span<T> data;
  };
  template <typename T>
  class [[nodiscard]] DataRange {
   public:
    DataRange(MicroBatchSequence& sequence, const PriorityFn& priority, T* data, std::size_t elements_per_row)
        : range_(sequence.iterate(priority)), data_(data), elements_per_row_(elements_per_row) {}
    class Iterator {
     public:
      using iterator_concept = std::input_iterator_tag;
      using value_type = WithData<T>;
      using difference_type = std::ptrdiff_t;
      Iterator(Range::Iterator at, const DataRange& range) : at_(at), range_(&range) {}
      [[nodiscard]] WithData<T> operator*() const {
        const std::size_t per_row = range_->elements_per_row_;
        return {*at_, {range_->data_ + static_cast<std::size_t>(at_->start) * per_row, static_cast<std::size_t>(at_->size) * per_row}};
      }
      Iterator& operator++() {
        ++at_;
        return *this;
      }
      void operator++(int) { ++at_; }
      [[nodiscard]] bool operator==(std::default_sentinel_t end) const { return at_ == end; }

     private:
      Range::Iterator at_;
      const DataRange* range_;
    };
    [[nodiscard]] Iterator begin() { return {range_.begin(), *this}; }
    [[nodiscard]] std::default_sentinel_t end() const { return {}; }

   private:
    Range range_;
    T* data_;
    std::size_t elements_per_row_;
  };
  /// `data` is [batch_size * elements_per_row], borrowed: `for (auto [micro_batch, rows] : context.iterate_with_data(x))`.
  template <std::ranges::contiguous_range Data>
  requires std::ranges::sized_range<Data>
  [[nodiscard]] auto iterate_with_data(Data& data, std::size_t elements_per_row = 1, const PriorityFn& priority = {}) {
    using Element = std::remove_reference_t<std::ranges::range_reference_t<Data>>;
    check_data_size(std::ranges::size(data), elements_per_row);
    return DataRange<Element>(*this, priority, std::ranges::data(data), elements_per_row);
  }

  /// Waits for the streams of all micro-batches entered so far.
  /// Errors  the deadline's; the first error of a task, after which all micro-batches of its stream are FAILED: tasks behind it were skipped.
  [[nodiscard]] Status sync_streams(const Deadline& deadline = Deadline::after(Duration::max()));
  /// Waits until all threads are here; each calls it equally often.      Errors  throws MicroBatchCancelled: a micro-batch failed, `cancel`, or a deadline
  /// passed.
  void wait_barrier(const Deadline& deadline = Deadline::after(Duration::max()));
  /// Ends all waits at the barrier and all walks. For a thread that fails outside of a micro-batch.
  void cancel(std::string_view reason);
  /// Starts over with another batch, and the micro-batch size reached so far.
  virtual void reset(std::int32_t batch_size);
  /// Starts over with a split that was agreed on elsewhere: a step's.
  /// Errors  throws std::invalid_argument as the constructor; std::logic_error: an adaptive context, whose size is its own.
  virtual void reset(const MicroBatchSplit& split);

 protected:
  struct Adaptation {
    std::optional<MicroBatchSizer> sizer;
    MemoryProbe memory_probe;
  };
  explicit MicroBatchSequence(const MicroBatchOptions& options, Adaptation adaptation);
  /// Waits for the streams, whatever they answer. The first thing of each derived destructor: tasks may use its members.
  void close() noexcept;
  /// What record_output without an index means on this thread.      Errors  throws std::logic_error: nothing is entered.
  [[nodiscard]] std::int32_t current_index() const;
  /// Errors  throws std::out_of_range, and std::logic_error for a second output or for a micro-batch that was never entered or has failed.
  void note_output(std::int32_t index);
  /// The output that was noted could not be kept: the micro-batch is FAILED.
  void lose_output(std::int32_t index);
  /// Synchronizes, then checks that each micro-batch has its output.      Errors  throws std::logic_error naming what is missing; std::runtime_error with
  /// the message of a stream's error.
  void check_outputs();

 private:
  void check_data_size(std::size_t elements, std::size_t elements_per_row) const;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep
