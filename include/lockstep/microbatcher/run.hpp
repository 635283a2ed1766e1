// How a microbatcher calls its batch function, and how an outcome reaches an Asio completion handler. Use through lockstep/microbatcher.hpp.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include "lockstep/microbatcher/core.hpp"

namespace lockstep {

/// Out for each item, in order; or a BatchOutcome for each, where items fail one by one.
template <typename R, typename Out>
concept BatchResults = std::same_as<R, std::vector<Out>> || std::same_as<R, std::vector<BatchOutcome<Out>>>;

template <typename Fn, typename In, typename Out>
concept SyncBatchFunction = std::invocable<Fn&, std::vector<In>> && BatchResults<std::invoke_result_t<Fn&, std::vector<In>>, Out>;

namespace detail {

template <typename T>
struct AwaitedType {};
template <typename R, typename Executor>
struct AwaitedType<boost::asio::awaitable<R, Executor>> {
  using type = R;
};

}  // namespace detail

template <typename Fn, typename In, typename Out>
concept AwaitableBatchFunction =
    std::invocable<Fn&, std::vector<In>> && BatchResults<typename detail::AwaitedType<std::invoke_result_t<Fn&, std::vector<In>>>::type, Out>;

template <typename Fn, typename In, typename Out>
concept BatchFunction = SyncBatchFunction<Fn, In, Out> || AwaitableBatchFunction<Fn, In, Out>;

namespace detail {

template <typename In, typename Out, typename Fn>
class BatchCoreOf final : public BatchCore<In, Out> {
 public:
  BatchCoreOf(boost::asio::any_io_executor executor, Fn fn, MicrobatcherOptions options)
      : BatchCore<In, Out>(std::move(executor), std::move(options)), fn_(std::move(fn)) {}

 private:
  void run(std::vector<In> inputs) override {
    if constexpr (SyncBatchFunction<Fn, In, Out>) {
      std::invoke_result_t<Fn&, std::vector<In>> results;
      std::exception_ptr error;
      try {
        results = std::invoke(fn_, std::move(inputs));
      } catch (...) {  // whatever it threw goes to each of its items
        error = std::current_exception();
      }
      this->finish(std::move(error), std::move(results));
    } else {
      using Results = typename AwaitedType<std::invoke_result_t<Fn&, std::vector<In>>>::type;
      boost::asio::awaitable<Results> work;
      try {
        work = std::invoke(fn_, std::move(inputs));
      } catch (...) {  // thrown before the first suspension, by a function that is no coroutine itself: goes to each of its items
        this->finish(std::current_exception(), Results{});
        return;
      }
      // The handler keeps the function alive while its coroutine runs, also when the microbatcher is gone.
      auto self = std::static_pointer_cast<BatchCoreOf>(this->shared_from_this());
      boost::asio::co_spawn(this->executor(), std::move(work),
                            [self](std::exception_ptr error, Results results) { self->finish(std::move(error), std::move(results)); });
    }
  }

  Fn fn_;
};

/// Posts the outcome to the handler's executor. Never runs it here: a handler may throw, and the other items of its batch have to end all the same.
template <typename Out, typename Handler>
class HandlerCompletion final : public ItemCompletion<Out> {
 public:
  using Guard = boost::asio::executor_work_guard<boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>>;

  HandlerCompletion(Handler handler, const boost::asio::any_io_executor& fallback)
      : guard_(boost::asio::get_associated_executor(handler, fallback)), handler_(std::move(handler)) {}

  void complete(BatchOutcome<Out> outcome) noexcept override {
    const auto executor = guard_.get_executor();
    boost::asio::post(executor, [handler = std::move(handler_), outcome = std::move(outcome), guard = std::move(guard_)]() mutable {
      boost::asio::get_associated_cancellation_slot(handler).clear();  // on the handler's executor, where its signal is used too
      guard.reset();
      if (outcome.index() == 0) {
        std::move(handler)(std::exception_ptr(), std::get<0>(std::move(outcome)));
      } else {
        std::move(handler)(std::get<1>(std::move(outcome)), Out());
      }
    });
  }

 private:
  Guard guard_;  // before the handler, which is moved from
  Handler handler_;
};

template <typename Handler>
class HandlerDrainWaiter final : public DrainWaiter {
 public:
  using Guard = boost::asio::executor_work_guard<boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>>;

  HandlerDrainWaiter(Handler handler, const boost::asio::any_io_executor& fallback)
      : guard_(boost::asio::get_associated_executor(handler, fallback)), handler_(std::move(handler)) {}

  void drained() noexcept override {
    const auto executor = guard_.get_executor();
    boost::asio::post(executor, [handler = std::move(handler_), guard = std::move(guard_)]() mutable {
      guard.reset();
      std::move(handler)();
    });
  }

 private:
  Guard guard_;
  Handler handler_;
};

/// Lets the handler's cancellation signal, where it has one, end the item.
template <typename In, typename Out, typename Handler>
void submit_with_handler(const std::shared_ptr<BatchCore<In, Out>>& core, In value, Handler handler) {
  auto slot = boost::asio::get_associated_cancellation_slot(handler);
  auto completion = std::make_unique<HandlerCompletion<Out, Handler>>(std::move(handler), core->executor());
  const auto item = std::make_shared<BatchItem<In, Out>>(BatchItem<In, Out>{.item = std::move(value), .completion = std::move(completion)});
  // Before the item can end: on another thread, its end would clear the slot while it is being set.
  if (slot.is_connected()) {
    slot.assign([weak_core = std::weak_ptr(core), weak_item = std::weak_ptr(item)](boost::asio::cancellation_type type) {
      const auto live_core = weak_core.lock();
      const auto live_item = weak_item.lock();
      if (live_core && live_item) {
        live_core->cancel(live_item, type);
      }
    });
  }
  core->submit(item);
}

}  // namespace detail
}  // namespace lockstep
