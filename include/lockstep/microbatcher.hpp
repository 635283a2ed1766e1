// AsyncMicrobatcher and SyncMicrobatcher: single items in, batches to a function, single results out. Seed module 003.
#pragma once

#include <concepts>
#include <condition_variable>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "lockstep/microbatcher/core.hpp"
#include "lockstep/microbatcher/handler_item.hpp"
#include "lockstep/microbatcher/run.hpp"
#include "lockstep/microbatcher/stats.hpp"
#include "lockstep/microbatcher/types.hpp"

namespace lockstep {

/// Collects items and gives them to `batch_fn` together, one batch at a time. An Asio component; it accepts items from its construction on.
/// A batch leaves when it is full or when its first item has waited the timeout; or, by default, as soon as no other batch runs.
/// Batch function  std::vector<In> to a std::vector of Out or BatchOutcome<Out>, or to an awaitable of one; called on `executor`, never from two threads at
/// once.
///                 One result an item, in order; another number is an error for all of them, and what it throws goes to each of them.
/// Ownership  Keeps `batch_fn` until its last batch is done. The executor's context outlives this object. The destructor does not wait: it ends every open item
///            with MicrobatcherError kCancelled, and a running batch's results are dropped; `stop` first to get them.
/// Threads    all members from any thread, also from inside the batch function. Each item ends exactly once whatever happens at the same time.
template <typename In, typename Out>
class AsyncMicrobatcher {
 public:
  static_assert(std::default_initializable<Out>, "Asio hands over a value beside an error: wrap Out into std::optional");

  /// Errors  throws std::invalid_argument for options out of range, and for an empty executor.
  template <typename Fn>
  requires BatchFunction<Fn, In, Out> AsyncMicrobatcher(boost::asio::any_io_executor executor, Fn batch_fn, MicrobatcherOptions options = {})
      : core_(std::make_shared<detail::BatchCoreOf<In, Out, Fn>>(std::move(executor), std::move(batch_fn), std::move(options))) {
    core_->open();
  }
  ~AsyncMicrobatcher() { core_->abandon(); }
  AsyncMicrobatcher(const AsyncMicrobatcher&) = delete;
  AsyncMicrobatcher& operator=(const AsyncMicrobatcher&) = delete;

  /// Ends with the item's result, or with an exception: what `batch_fn` threw or returned for it, or MicrobatcherError: kResourceExhausted when `max_pending`
  /// items wait, kCancelled after `stop`, kInternal for a wrong result count. Never blocks. The handler runs on its own executor, or on this object's.
  /// Cancel  by the handler's cancellation slot: the item ends with boost::system::system_error(operation_aborted). If its batch runs, that needs `terminal` or
  ///         `partial` cancellation, and the batch goes on without it.
  ///         Emit it where Asio allows it: not while `submit` begins, and on the handler's executor.
  /// Cost    one block of memory from the handler's allocator (Asio's recycling one by default); one post for the batch, and one for its handlers: those that
  ///         share an executor run there one after the other, so that none may wait for another one of its batch.
  template <boost::asio::completion_token_for<void(std::exception_ptr, Out)> Token = boost::asio::use_awaitable_t<>>
  auto submit(In item, Token&& token = Token()) {
    return boost::asio::async_initiate<Token, void(std::exception_ptr, Out)>(
        [core = core_]<typename Handler>(Handler&& handler, In value) { detail::submit_with_handler(core, std::move(value), std::forward<Handler>(handler)); },
        token, std::move(item));
  }

  /// Refuses items from now on, and ends when all accepted ones have ended; those leave without waiting for the timeout. May be called again.
  template <boost::asio::completion_token_for<void()> Token = boost::asio::use_awaitable_t<>>
  auto stop(Token&& token = Token()) {
    return boost::asio::async_initiate<Token, void()>(
        [core = core_](auto handler) { core->stop(std::make_unique<detail::HandlerDrainWaiter<decltype(handler)>>(std::move(handler), core->executor())); },
        token);
  }

  [[nodiscard]] BatchStats stats() const { return core_->stats(); }
  /// True until `stop`.
  [[nodiscard]] bool is_running() const { return core_->is_open(); }
  [[nodiscard]] boost::asio::any_io_executor get_executor() const { return core_->executor(); }

 private:
  std::shared_ptr<detail::BatchCore<In, Out>> core_;  // shared with posted batches and operations not yet begun
};

namespace detail {

/// An item and the caller that waits for it, on that caller's stack: it holds the only reference to an exception, so it alone destroys it.
template <typename In, typename Out>
class CallerItem final : public QueuedItem<In, Out> {
 public:
  explicit CallerItem(In value) : QueuedItem<In, Out>(std::move(value)) {}

  void tell() override {
    const std::lock_guard lock(mutex_);
    told_ = true;
    wake_.notify_one();  // under the lock: without it the caller may be gone
  }
  void discard() noexcept override {}

  [[nodiscard]] BatchOutcome<Out> wait() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return told_; });
    return std::move(*this->outcome);
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool told_ = false;
};

class PromiseDrainWaiter final : public DrainWaiter {
 public:
  [[nodiscard]] std::future<void> get_future() { return promise_.get_future(); }
  void drained() noexcept override { promise_.set_value(); }

 private:
  std::promise<void> promise_;
};

}  // namespace detail

/// The same for code without an event loop: `submit` waits for its result while a thread of this object calls `batch_fn`.
/// Batch function  as AsyncMicrobatcher's, without awaitables; called on that thread.
/// Ownership  Owns `batch_fn` and the thread. The destructor stops: it waits for what was accepted.
/// Threads    all members from any thread, but `submit` and `stop` not from inside the batch function.
template <typename In, typename Out>
class SyncMicrobatcher {
 public:
  /// Accepts nothing before `start`.      Errors  throws std::invalid_argument for options out of range.
  template <typename Fn>
  requires SyncBatchFunction<Fn, In, Out>
  explicit SyncMicrobatcher(Fn batch_fn, MicrobatcherOptions options = {})
      : core_(std::make_shared<detail::BatchCoreOf<In, Out, Fn>>(io_.get_executor(), std::move(batch_fn), std::move(options))) {}
  ~SyncMicrobatcher() { stop(); }
  SyncMicrobatcher(const SyncMicrobatcher&) = delete;
  SyncMicrobatcher& operator=(const SyncMicrobatcher&) = delete;

  /// Starts the thread; after `stop` too. Nothing happens when it runs already.
  void start() {
    const std::lock_guard lock(lifecycle_);
    if (thread_.joinable()) {
      return;
    }
    io_.restart();
    guard_.emplace(io_.get_executor());
    thread_ = std::jthread([this] { io_.run(); });
    core_->open();
  }

  /// Refuses items from now on, finishes what was accepted, and ends the thread.      Errors  throws std::logic_error inside the batch function.
  void stop() {
    refuse_inside_batch("stop");
    const std::lock_guard lock(lifecycle_);
    if (!thread_.joinable()) {
      return;
    }
    auto waiter = std::make_unique<detail::PromiseDrainWaiter>();
    const std::future<void> drained = waiter->get_future();
    core_->stop(std::move(waiter));
    drained.wait();
    guard_.reset();
    thread_.join();
  }

  /// The item's result.      Errors  throws what `batch_fn` threw or returned for it; MicrobatcherError as AsyncMicrobatcher::submit; std::logic_error inside
  /// the batch function, which would wait for itself.
  Out submit(In item) {
    refuse_inside_batch("submit");
    detail::CallerItem<In, Out> caller(std::move(item));
    core_->submit(caller);
    BatchOutcome<Out> outcome = caller.wait();
    if (outcome.index() != 0) {
      std::rethrow_exception(std::get<1>(std::move(outcome)));
    }
    return std::get<0>(std::move(outcome));
  }

  [[nodiscard]] BatchStats stats() const { return core_->stats(); }
  /// True from `start` to `stop`.
  [[nodiscard]] bool is_running() const { return core_->is_open(); }

 private:
  void refuse_inside_batch(const char* what) const {
    if (io_.get_executor().running_in_this_thread()) {
      throw std::logic_error(core_->options().name + ": " + what + " inside the batch function would wait for itself: call it from another thread");
    }
  }

  mutable boost::asio::io_context io_{1};             // before the core, whose timer uses it
  std::shared_ptr<detail::BatchCore<In, Out>> core_;  // shared with posted batches
  std::mutex lifecycle_;
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> guard_;
  std::jthread thread_;
};

}  // namespace lockstep
