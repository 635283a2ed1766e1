// QueuedItem: an item that lists link, and that knows how to tell its submitter. Use through lockstep/microbatcher.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/execution/blocking.hpp>
#include <boost/asio/require.hpp>

#include "lockstep/microbatcher/types.hpp"

namespace lockstep::detail {

/// An executor that never runs a function inside the call that hands it over. Asked for once: `post` would ask for it, through a type-erased executor, each
/// time.
class PostingExecutor {
 public:
  PostingExecutor() = default;
  explicit PostingExecutor(const boost::asio::any_io_executor& executor) : executor_(boost::asio::require(executor, boost::asio::execution::blocking.never)) {}

  template <typename Fn>
  void post(Fn fn) const {
    executor_.execute(std::move(fn));
  }
  friend bool operator==(const PostingExecutor& a, const PostingExecutor& b) { return a.executor_ == b.executor_; }

 private:
  boost::asio::any_io_executor executor_;
};

enum class ItemState : std::uint8_t { kNew, kPending, kRunning, kEnded };

/// An item on its way. It lies where its submitter's way of waiting has room: beside a completion handler, or on the stack of a thread that waits.
/// Ownership  Whoever ends the item, under the microbatcher's lock, owns it from then on, and calls `tell` or `discard` once: both end its life.
template <typename In, typename Out>
class QueuedItem : public BatchItem<In, Out> {
 public:
  QueuedItem(const QueuedItem&) = delete;
  QueuedItem& operator=(const QueuedItem&) = delete;

  /// Gives `outcome` to the submitter. Throws what the submitter's handler throws.
  virtual void tell() = 0;
  /// Tells nobody: the execution context is being destroyed.
  virtual void discard() noexcept = 0;

  /// Where `tell` has to be called, as a function of its own; null: at once, on any thread, outside of all locks.
  const PostingExecutor* executor = nullptr;

  // The microbatcher's, under its lock:
  QueuedItem* previous = nullptr;
  QueuedItem* next = nullptr;
  std::size_t place = 0;  ///< in the running batch
  ItemState state = ItemState::kNew;

 protected:
  explicit QueuedItem(In value) : BatchItem<In, Out>{.item = std::move(value)} {}
  ~QueuedItem() = default;  // by `tell` and `discard` only
};

/// Items in order, linked through themselves. Owns none of them.
template <typename In, typename Out>
class ItemList {
 public:
  using Item = QueuedItem<In, Out>;

  ItemList() = default;
  ItemList(ItemList&& other) noexcept
      : first_(std::exchange(other.first_, nullptr)), last_(std::exchange(other.last_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  /// Of an empty list only: it owns none of its items, so nothing would tell those that it had.
  ItemList& operator=(ItemList&& other) noexcept {
    first_ = std::exchange(other.first_, nullptr);
    last_ = std::exchange(other.last_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] Item& front() { return *first_; }
  [[nodiscard]] const Item& front() const { return *first_; }
  [[nodiscard]] const Item& back() const { return *last_; }

  void push_back(Item& item) {
    item.previous = last_;
    item.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &item;
    last_ = &item;
    ++size_;
  }
  void remove(Item& item) {
    (item.previous == nullptr ? first_ : item.previous->next) = item.next;
    (item.next == nullptr ? last_ : item.next->previous) = item.previous;
    --size_;
  }
  template <typename Fn>
  void for_each(Fn fn) {
    for (Item* item = first_; item != nullptr; item = item->next) {
      fn(*item);
    }
  }
  Item& pop_front() {
    Item& item = *first_;
    first_ = item.next;
    (first_ == nullptr ? last_ : first_->previous) = nullptr;
    --size_;
    return item;
  }
  /// Calls `fn` with each item from the first on until it returns false, and takes away those that it returned true for.
  template <typename Fn>
  [[nodiscard]] ItemList take_while(Fn fn) {
    ItemList taken;
    Item* rest = first_;
    for (; rest != nullptr && fn(*rest); rest = rest->next) {
      ++taken.size_;
    }
    if (rest == first_) {
      return taken;
    }
    taken.first_ = std::exchange(first_, rest);
    taken.last_ = std::exchange(rest == nullptr ? last_ : rest->previous, nullptr);
    taken.last_->next = nullptr;
    size_ -= taken.size_;
    return taken;
  }

 private:
  Item* first_ = nullptr;
  Item* last_ = nullptr;
  std::size_t size_ = 0;
};

/// Tells ended items on their executor, one after the other: what is posted there.
template <typename In, typename Out>
class TellItems {
 public:
  TellItems(const PostingExecutor& executor, ItemList<In, Out> items) : executor_(executor), items_(std::move(items)) {}
  TellItems(TellItems&&) noexcept = default;
  TellItems& operator=(TellItems&&) = delete;
  ~TellItems() {
    while (!items_.empty()) {
      items_.pop_front().discard();
    }
  }

  void operator()() {
    const PostRest post_rest(*this);
    while (!items_.empty()) {
      items_.pop_front().tell();
    }
  }

 private:
  /// A handler may throw, and that goes to whoever runs the executor; the items after it have to end all the same.
  class PostRest {
   public:
    explicit PostRest(TellItems& whole) : whole_(whole) {}
    PostRest(const PostRest&) = delete;
    PostRest& operator=(const PostRest&) = delete;
    ~PostRest() {
      if (!whole_.items_.empty()) {
        whole_.executor_.post(TellItems(whole_.executor_, std::move(whole_.items_)));
      }
    }

   private:
    TellItems& whole_;
  };

  PostingExecutor executor_;
  ItemList<In, Out> items_;
};

/// Has each item's submitter told of its outcome, but not here: a handler does not run inside the call that ends its item. Neighbours that share an executor
/// share a post.
template <typename In, typename Out>
void tell_all(ItemList<In, Out> items) {
  while (!items.empty()) {
    const PostingExecutor* const shared = items.front().executor;
    if (shared == nullptr) {
      items.pop_front().tell();
      continue;
    }
    const PostingExecutor executor = *shared;  // a copy: once posted, the items may be gone
    ItemList<In, Out> together = items.take_while(
        [shared](const QueuedItem<In, Out>& item) { return item.executor == shared || (item.executor != nullptr && *item.executor == *shared); });
    executor.post(TellItems<In, Out>(executor, std::move(together)));
  }
}

template <typename In, typename Out>
void tell_one(QueuedItem<In, Out>& item) {
  ItemList<In, Out> alone;
  alone.push_back(item);
  tell_all(std::move(alone));
}

}  // namespace lockstep::detail
