// How a microbatcher calls its batch function. Use through lockstep/microbatcher.hpp.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>

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

}  // namespace detail
}  // namespace lockstep
