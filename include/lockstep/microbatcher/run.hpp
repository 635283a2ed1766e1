// How a microbatcher calls its batch function. Use through lockstep/microbatcher.hpp.
#pragma once

#include <concepts>
#include <exception>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>

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
  using executor_type = Executor;
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
  using FnResult = std::invoke_result_t<Fn&, std::vector<In>>;
  using Base = BatchCore<In, Out>;

  void run() override {
    if constexpr (SyncBatchFunction<Fn, In, Out>) {
      run_one();
    } else {
      boost::asio::co_spawn(this->executor(), run_all(std::static_pointer_cast<BatchCoreOf>(this->shared_from_this())), boost::asio::detached);
    }
  }

  void run_one() {
    std::vector<In> inputs = this->take_batch();
    if (inputs.empty()) {
      return;
    }
    FnResult results;
    std::exception_ptr error;
    try {
      results = std::invoke(fn_, std::move(inputs));
    } catch (...) {  // whatever it threw goes to each of its items
      error = std::current_exception();
    }
    typename Base::Ended ended = this->finish(std::move(error), std::move(results));
    const bool begins_next = ended.begins_next;
    this->tell_and_continue(std::move(ended), [&] {
      if (begins_next) {
        this->post_run();
      }
    });
  }

  /// One coroutine as long as batches follow each other: to spawn one for each would cost as much as eight items. It keeps the function alive, also when the
  /// microbatcher is gone.
  template <typename Awaited = AwaitedType<FnResult>>
  static boost::asio::awaitable<void, typename Awaited::executor_type> run_all(std::shared_ptr<BatchCoreOf> self) {
    for (bool more = true; more;) {
      std::vector<In> inputs = self->take_batch();
      if (inputs.empty()) {
        break;
      }
      typename Awaited::type results;
      std::exception_ptr error;
      try {
        results = co_await std::invoke(self->fn_, std::move(inputs));
      } catch (...) {  // whatever it threw goes to each of its items, also before it made a coroutine
        error = std::current_exception();
      }
      typename Base::Ended ended = self->finish(std::move(error), std::move(results));
      more = ended.begins_next;
      if (more) {
        co_await tell_and_post(self, ended);
      } else {
        self->tell_and_continue(std::move(ended), [] {});
      }
    }
  }

  /// To be awaited: goes on in a later function on the executor.
  static auto tell_and_post(const std::shared_ptr<BatchCoreOf>& self, typename Base::Ended& ended) {
    const auto initiate = [&self, &ended](auto handler) {
      // From the post on the coroutine may go on elsewhere, and be gone: nothing of it is touched from there.
      const std::shared_ptr<BatchCoreOf> kept = self;
      kept->tell_and_continue(std::move(ended), [&] { kept->posting().post(std::move(handler)); });
    };
    return boost::asio::async_initiate<const boost::asio::deferred_t&, void()>(initiate, boost::asio::deferred);
  }

  Fn fn_;
};

}  // namespace detail
}  // namespace lockstep
