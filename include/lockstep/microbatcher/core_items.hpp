// BatchCore: how items come and go. Included by core.hpp only.
#pragma once

#include <algorithm>

#include "lockstep/microbatcher/core.hpp"

namespace lockstep::detail {

template <typename In, typename Out>
BatchStats BatchCore<In, Out>::stats() const {
  std::unique_lock lock(mutex_);
  const BatchStatsRecorder copy = recorder_;
  lock.unlock();  // percentiles sort: nobody waits for that
  return copy.snapshot();
}

template <typename In, typename Out>
bool BatchCore<In, Out>::is_open() const {
  const std::lock_guard lock(mutex_);
  return open_;
}

template <typename In, typename Out>
void BatchCore<In, Out>::open() {
  const std::lock_guard lock(mutex_);
  open_ = true;
}

template <typename In, typename Out>
void BatchCore<In, Out>::submit(const ItemPtr& item) {
  std::unique_lock lock(mutex_);
  if (item->completion == nullptr) {
    return;  // cancelled before it arrived here
  }
  if (!open_ || pending_.size() >= options_.max_pending) {
    recorder_.add_refused();
    const bool full = open_;
    const std::unique_ptr<ItemCompletion<Out>> completion = std::move(item->completion);
    lock.unlock();
    completion->complete(full ? full_error(options_) : stopped_error(options_));
    return;
  }
  item->submitted = timer_->now();
  item->sequence = ++last_sequence_;
  pending_.push_back(item);
  post_dispatch_if(plan(), lock);
}

template <typename In, typename Out>
void BatchCore<In, Out>::cancel(const ItemPtr& item, boost::asio::cancellation_type type) {
  using boost::asio::cancellation_type;
  std::unique_lock lock(mutex_);
  if (item->completion == nullptr) {
    return;
  }
  const auto found = std::ranges::lower_bound(pending_, item->sequence, {}, [](const ItemPtr& each) { return each->sequence; });
  const bool waits = found != pending_.end() && *found == item;
  const bool in_batch = !waits && item->sequence != 0;
  if (in_batch && (type & (cancellation_type::terminal | cancellation_type::partial)) == cancellation_type::none) {
    return;
  }
  if (waits) {
    pending_.erase(found);
  }
  recorder_.add_cancelled(1);
  const std::unique_ptr<ItemCompletion<Out>> completion = std::move(item->completion);
  if (pending_.empty()) {
    disarm();  // or the executor would stay busy until the timeout
  }
  const Waiters waiters = take_waiters_if_drained();
  lock.unlock();
  completion->complete(cancelled_error());
  notify(waiters);
}

template <typename In, typename Out>
void BatchCore<In, Out>::stop(std::unique_ptr<DrainWaiter> waiter) {
  std::unique_lock lock(mutex_);
  open_ = false;
  waiters_.push_back(std::move(waiter));
  const Waiters waiters = take_waiters_if_drained();
  post_dispatch_if(plan(), lock);
  notify(waiters);
}

template <typename In, typename Out>
void BatchCore<In, Out>::abandon() {
  std::unique_lock lock(mutex_);
  open_ = false;
  const std::deque<ItemPtr> dropped = std::exchange(pending_, {});  // destroyed after the lock: the destructors of items are user code
  Completions completions;
  take_completions(dropped, completions);
  take_completions(running_, completions);
  recorder_.add_cancelled(completions.size());
  disarm();
  const Waiters waiters = std::exchange(waiters_, {});
  lock.unlock();
  for (const auto& completion : completions) {
    completion->complete(destroyed_error(options_));
  }
  notify(waiters);
}

template <typename In, typename Out>
template <typename Items>
void BatchCore<In, Out>::take_completions(const Items& items, Completions& completions) {
  for (const ItemPtr& item : items) {
    if (item->completion != nullptr) {
      completions.push_back(std::move(item->completion));
    }
  }
}

template <typename In, typename Out>
typename BatchCore<In, Out>::Waiters BatchCore<In, Out>::take_waiters_if_drained() {
  return pending_.empty() && !busy_ ? std::exchange(waiters_, {}) : Waiters{};
}

template <typename In, typename Out>
void BatchCore<In, Out>::notify(const Waiters& waiters) {
  for (const auto& waiter : waiters) {
    waiter->drained();
  }
}

}  // namespace lockstep::detail
