// How an outcome reaches an Asio completion handler, and how its cancellation reaches the item. Use through lockstep/microbatcher.hpp.
#pragma once

#include <concepts>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_allocator.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/execution/outstanding_work.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/recycling_allocator.hpp>

#include "lockstep/microbatcher/core.hpp"

namespace lockstep::detail {

/// What a cancellation slot holds for an item.
/// Ownership  the slot's. Either end unties the two when it goes: a signal may be emitted after the item, and the item be told after the signal is gone.
template <typename In, typename Out>
class ItemCanceller {
 public:
  class Item : public QueuedItem<In, Out> {
   protected:
    using QueuedItem<In, Out>::QueuedItem;
    ~Item() {
      if (canceller != nullptr) {
        canceller->item_ = nullptr;
      }
    }

   public:
    ItemCanceller* canceller = nullptr;  ///< used on the handler's executor only, as its signal is
  };

  ItemCanceller(std::weak_ptr<BatchCore<In, Out>> core, Item& item) : core_(std::move(core)), item_(&item) { item.canceller = this; }
  ~ItemCanceller() {
    if (item_ != nullptr) {
      item_->canceller = nullptr;
    }
  }
  ItemCanceller(const ItemCanceller&) = delete;
  ItemCanceller& operator=(const ItemCanceller&) = delete;

  void operator()(boost::asio::cancellation_type type) {
    if (const auto core = core_.lock(); core != nullptr && item_ != nullptr) {
      core->cancel(*item_, type);
    }
  }

 private:
  std::weak_ptr<BatchCore<In, Out>> core_;
  Item* item_;
};

/// An item and the completion handler that waits for it, in memory of the handler's allocator.
template <typename In, typename Out, typename Handler>
class HandlerItem final : public ItemCanceller<In, Out>::Item {
 public:
  static_assert(std::convertible_to<boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>, boost::asio::any_io_executor>,
                "a handler's executor has to be one that any_io_executor can hold");

  /// The handler's executor is kept at work until the item is told. The microbatcher's is at work anyway while an item is open.
  template <typename H>
  [[nodiscard]] static HandlerItem& make(In&& value, H&& handler, const BatchCore<In, Out>& core) {
    Allocator allocator(boost::asio::get_associated_allocator(handler, boost::asio::recycling_allocator<void>()));
    HandlerItem* const place = std::allocator_traits<Allocator>::allocate(allocator, 1);
    return *new (place) HandlerItem(std::move(value), std::forward<H>(handler), core);  // does not throw: no move of a handler may
  }

  void tell() override {
    if (this->canceller != nullptr) {
      boost::asio::get_associated_cancellation_slot(handler_).clear();
    }
    if (this->outcome->index() == 0) {
      Out value = std::get<0>(std::move(*this->outcome));
      release()(std::exception_ptr(), std::move(value));
    } else {
      std::exception_ptr error = std::get<1>(std::move(*this->outcome));
      release()(std::move(error), Out());
    }
  }

  void discard() noexcept override { free(own_allocator()); }

 private:
  using Allocator =
      typename std::allocator_traits<boost::asio::associated_allocator_t<Handler, boost::asio::recycling_allocator<void>>>::template rebind_alloc<HandlerItem>;

  template <typename H>
  HandlerItem(In&& value, H&& handler, const BatchCore<In, Out>& core) : ItemCanceller<In, Out>::Item(std::move(value)), handler_(std::forward<H>(handler)) {
    const boost::asio::any_io_executor handlers = boost::asio::get_associated_executor(handler_, core.executor());
    this->executor =
        handlers == core.executor() ? &core.posting() : &own_.emplace(boost::asio::prefer(handlers, boost::asio::execution::outstanding_work.tracked));
  }
  ~HandlerItem() = default;

  [[nodiscard]] Allocator own_allocator() const { return Allocator(boost::asio::get_associated_allocator(handler_, boost::asio::recycling_allocator<void>())); }
  /// The memory is free before the handler runs, which may submit again and get the same.
  [[nodiscard]] Handler release() {
    const Allocator allocator = own_allocator();
    Handler handler = std::move(handler_);
    free(allocator);
    return handler;
  }
  void free(Allocator allocator) noexcept {
    this->~HandlerItem();
    std::allocator_traits<Allocator>::deallocate(allocator, this, 1);
  }

  Handler handler_;
  std::optional<PostingExecutor> own_;  ///< where it is not the microbatcher's
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
void submit_with_handler(const std::shared_ptr<BatchCore<In, Out>>& core, In value, Handler&& handler) {
  auto slot = boost::asio::get_associated_cancellation_slot(handler);
  auto& item = HandlerItem<In, Out, std::decay_t<Handler>>::make(std::move(value), std::forward<Handler>(handler), *core);
  // Before the item can end: on another thread, its end would clear the slot while it is being set.
  if (slot.is_connected()) {
    slot.template emplace<ItemCanceller<In, Out>>(std::weak_ptr(core), item);
  }
  core->submit(item);
}

}  // namespace lockstep::detail
