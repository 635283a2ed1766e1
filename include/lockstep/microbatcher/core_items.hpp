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
void BatchCore<In, Out>::submit(Item& item) {
  std::unique_lock lock(mutex_);
  if (!open_ || pending_.size() >= options_.max_pending) {
    recorder_.add_refused();
    const bool full = open_;
    lock.unlock();
    item.outcome.emplace(full ? full_error(options_) : stopped_error(options_));
    tell_one(item);
    return;
  }
  const std::size_t waiting = pending_.size();
  // A look at the clock costs as much as the rest of this function. Where no timeout counts, four neighbours of a long queue share one.
  const bool shares_time = options_.dispatch_when_idle && waiting >= kTimedEach && waiting % kTimedTogether != 0;
  item.submitted = shares_time ? pending_.back().submitted : timer_->now();
  item.state = ItemState::kPending;
  pending_.push_back(item);
  if (!scheduled_ && !busy_) {
    post_run_if(plan(), lock);
  }
}

template <typename In, typename Out>
void BatchCore<In, Out>::cancel(Item& item, boost::asio::cancellation_type type) {
  using boost::asio::cancellation_type;
  std::unique_lock lock(mutex_);
  if (item.state == ItemState::kPending) {
    pending_.remove(item);
  } else if (item.state == ItemState::kRunning && (type & (cancellation_type::terminal | cancellation_type::partial)) != cancellation_type::none) {
    running_.remove(item);
  } else {
    return;
  }
  recorder_.add_cancelled(1);
  item.state = ItemState::kEnded;
  item.outcome.emplace(cancelled_error());
  if (pending_.empty()) {
    disarm();  // or the executor would stay busy until the timeout
  }
  const Waiters waiters = take_waiters_if_drained();
  lock.unlock();
  tell_one(item);
  notify(waiters);
}

template <typename In, typename Out>
void BatchCore<In, Out>::stop(std::unique_ptr<DrainWaiter> waiter) {
  std::unique_lock lock(mutex_);
  open_ = false;
  waiters_.push_back(std::move(waiter));
  const Waiters waiters = take_waiters_if_drained();
  post_run_if(plan(), lock);
  notify(waiters);
}

template <typename In, typename Out>
void BatchCore<In, Out>::abandon() {
  std::unique_lock lock(mutex_);
  open_ = false;
  Items ended;
  while (!pending_.empty()) {
    ended.push_back(pending_.pop_front());
  }
  while (!running_.empty()) {
    ended.push_back(running_.pop_front());
  }
  recorder_.add_cancelled(ended.size());
  disarm();
  const Waiters waiters = std::exchange(waiters_, {});
  ended.for_each([this](Item& item) {
    item.state = ItemState::kEnded;
    item.outcome.emplace(destroyed_error(options_));
  });
  lock.unlock();
  tell_all(std::move(ended));
  notify(waiters);
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
