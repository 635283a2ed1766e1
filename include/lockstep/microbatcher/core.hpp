// BatchCore: the batching rule and the life of items, shared by both microbatchers. Use through lockstep/microbatcher.hpp.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/executor_work_guard.hpp>

#include "lockstep/microbatcher/item.hpp"
#include "lockstep/microbatcher/stats.hpp"
#include "lockstep/microbatcher/types.hpp"

namespace lockstep::detail {

/// Errors  throws std::invalid_argument: an executor that is none.
[[nodiscard]] boost::asio::any_io_executor checked_executor(boost::asio::any_io_executor executor, const MicrobatcherOptions& options);
[[nodiscard]] std::shared_ptr<BatchTimer> make_asio_batch_timer(const boost::asio::any_io_executor& executor);
[[nodiscard]] std::exception_ptr full_error(const MicrobatcherOptions& options);
[[nodiscard]] std::exception_ptr stopped_error(const MicrobatcherOptions& options);
[[nodiscard]] std::exception_ptr destroyed_error(const MicrobatcherOptions& options);
[[nodiscard]] std::exception_ptr result_count_error(const MicrobatcherOptions& options, std::size_t results, std::size_t items);
[[nodiscard]] std::exception_ptr no_outcome_error(const MicrobatcherOptions& options);
[[nodiscard]] std::exception_ptr cancelled_error();

/// Someone who waits until all accepted items have ended.
class DrainWaiter {
 public:
  virtual ~DrainWaiter() = default;
  DrainWaiter(const DrainWaiter&) = delete;
  DrainWaiter& operator=(const DrainWaiter&) = delete;
  virtual void drained() noexcept = 0;

 protected:
  DrainWaiter() = default;
};

/// Items in order of acceptance, at most one running batch, and the rule when the next leaves.
/// Threads  any. One mutex, held for a few moves of pointers and never while user code runs: tells, batch function and posts come after it.
/// Cost     of an item, of its batch aside: one short lock, at most one look at the clock, no allocation.
template <typename In, typename Out>
class BatchCore : public std::enable_shared_from_this<BatchCore<In, Out>> {
 public:
  static_assert(std::is_nothrow_move_constructible_v<In> && std::is_nothrow_move_constructible_v<Out>, "an item that throws on the way could be lost");
  static_assert(!std::is_same_v<Out, std::exception_ptr>, "a result and a failure could not be told apart");
  using Item = QueuedItem<In, Out>;
  using Items = ItemList<In, Out>;
  using Waiters = std::vector<std::unique_ptr<DrainWaiter>>;

  virtual ~BatchCore() = default;
  BatchCore(const BatchCore&) = delete;
  BatchCore& operator=(const BatchCore&) = delete;

  [[nodiscard]] const MicrobatcherOptions& options() const { return options_; }
  [[nodiscard]] const boost::asio::any_io_executor& executor() const { return executor_; }
  [[nodiscard]] const PostingExecutor& posting() const { return posting_; }
  [[nodiscard]] BatchStats stats() const;
  [[nodiscard]] bool is_open() const;
  void open();
  /// Accepts the item or ends it at once; it may be gone on return.
  void submit(Item& item);
  /// Ends the item now if it was accepted and has not ended. A batch that it is in goes on and its result is dropped; `type` has to allow that side effect
  /// then. The item is there until it was told, and may be gone on return.
  void cancel(Item& item, boost::asio::cancellation_type type);
  /// Accepts nothing more; `waiter` is told when all that was accepted has ended. Nothing waits for the timeout from here on.
  void stop(std::unique_ptr<DrainWaiter> waiter);
  /// Ends every item now. A running batch goes on, its results are dropped.
  void abandon();

 protected:
  BatchCore(boost::asio::any_io_executor executor, MicrobatcherOptions options)
      : executor_(checked_executor(std::move(executor), options)),
        posting_(executor_),
        options_(std::move(options)),
        timer_(options_.timer ? options_.timer : make_asio_batch_timer(executor_)) {
    check_microbatcher_options(options_);
  }
  /// What a batch leaves behind: items and waiters to be told, outside of the lock; and whether the next batch has to be begun, in a later function on the
  /// executor.
  struct Ended {
    Items items;
    Waiters waiters;
    bool begins_next = false;
  };

  /// Begins the batch that `take_batch` gives, if any, and ends it by `finish`, now or later. Posted to the executor where `plan` was true.
  virtual void run() = 0;
  /// The inputs of the next batch; empty: none may leave yet.
  [[nodiscard]] std::vector<In> take_batch();
  /// Gives each item of the running batch its outcome: `error` if there is one, or that of its place in `results`. T: Out or BatchOutcome<Out>.
  template <typename T>
  [[nodiscard]] Ended finish(std::exception_ptr error, std::vector<T> results);
  /// Has the items told, and calls `post_next`, which posts what begins the next batch: first where handlers run elsewhere, which may take many posts. Those
  /// of this executor share one, and come before the next batch: on a loop of one thread they would wait for it, and it for what they submit.
  template <typename PostNext>
  void tell_and_continue(Ended ended, PostNext post_next) const;
  void post_run();

 private:
  // Under the lock:
  /// True: `run` has to be posted. Otherwise the timer is set for when that changes by itself.
  [[nodiscard]] bool plan();
  [[nodiscard]] bool may_leave() const;
  void arm();
  void disarm();
  [[nodiscard]] Waiters take_waiters_if_drained();

  // Outside of it:
  void on_timer();
  /// Ends the lock first: waking a thread under it would make that thread wait at once.
  void post_run_if(bool wanted, std::unique_lock<std::mutex>& lock);
  static void notify(const Waiters& waiters);

  static constexpr std::size_t kTimedEach = 4;      // the first items of a queue
  static constexpr std::size_t kTimedTogether = 4;  // items after them

  const boost::asio::any_io_executor executor_;
  const PostingExecutor posting_;  // the same
  const MicrobatcherOptions options_;
  const std::shared_ptr<BatchTimer> timer_;  // shared with the options
  mutable std::mutex mutex_;
  bool open_ = false;
  bool scheduled_ = false;  // run is posted, and has taken no batch yet
  bool busy_ = false;       // a batch runs
  std::optional<TimePoint> armed_for_;
  std::optional<boost::asio::executor_work_guard<boost::asio::any_io_executor>> armed_work_;  // the executor has work while items wait for a time
  Items pending_;                                                                             // in order of acceptance
  Items running_;                                                                             // of the running batch, those that have not ended
  std::size_t running_size_ = 0;                                                              // its items, ended ones too
  Waiters waiters_;
  BatchStatsRecorder recorder_;
};

}  // namespace lockstep::detail

// The definitions, in two files of a readable size.
#include "lockstep/microbatcher/core_batches.hpp"
#include "lockstep/microbatcher/core_items.hpp"
