// BatchCore: when a batch leaves, and how it ends. Included by core.hpp only.
#pragma once

#include <algorithm>

#include "lockstep/microbatcher/core.hpp"

namespace lockstep::detail {

/// Neither a value nor an exception, which would be told as a success or end the process.
template <typename Out>
[[nodiscard]] bool is_no_outcome(const BatchOutcome<Out>& outcome) {
  const auto* const error = std::get_if<1>(&outcome);
  return error != nullptr ? *error == nullptr : outcome.valueless_by_exception();
}

template <typename In, typename Out>
template <typename T>
void BatchCore<In, Out>::finish(std::exception_ptr error, std::vector<T> results) {
  std::unique_lock lock(mutex_);
  const std::size_t count = running_.size();
  const bool wrong_count = !error && results.size() != count;
  Items ended;
  for (std::size_t i = 0; i < count; ++i) {
    if (running_[i] == nullptr) {
      continue;  // cancelled
    }
    Item& item = *running_[i];
    item.state = ItemState::kEnded;
    if (error) {
      item.outcome.emplace(error);
    } else if (wrong_count) {
      item.outcome.emplace(result_count_error(options_, results.size(), count));
    } else if constexpr (std::is_same_v<T, BatchOutcome<Out>>) {
      item.outcome.emplace(std::move(results[i]));
      if (is_no_outcome(*item.outcome)) {
        item.outcome.emplace(no_outcome_error(options_));
      }
    } else {
      item.outcome.emplace(std::in_place_index<0>, std::move(results[i]));
    }
    recorder_.add_failures(item.outcome->index());
    ended.push_back(item);
  }
  running_.clear();
  error = nullptr;  // the exception belongs to the submitters now: it must not be destroyed here while they read it
  busy_ = false;
  const Waiters waiters = take_waiters_if_drained();
  post_dispatch_if(plan(), lock);
  tell_all(std::move(ended));
  notify(waiters);
}

template <typename In, typename Out>
bool BatchCore<In, Out>::plan() {
  if (scheduled_ || busy_ || pending_.empty()) {
    return false;
  }
  if (!may_leave()) {
    arm();
    return false;
  }
  disarm();
  scheduled_ = true;
  return true;
}

template <typename In, typename Out>
bool BatchCore<In, Out>::may_leave() const {
  return options_.dispatch_when_idle || !open_ || pending_.size() >= options_.max_batch_size ||
         timer_->now() >= pending_.front().submitted + options_.batch_wait_timeout;
}

template <typename In, typename Out>
void BatchCore<In, Out>::arm() {
  const TimePoint when = pending_.front().submitted + options_.batch_wait_timeout;
  if (armed_for_ != when) {
    armed_for_ = when;
    armed_work_.emplace(executor_);
    timer_->arm(when, [weak = this->weak_from_this()] {
      if (const auto self = weak.lock()) {
        self->on_timer();
      }
    });
  }
}

template <typename In, typename Out>
void BatchCore<In, Out>::disarm() {
  if (armed_for_) {
    armed_for_.reset();
    armed_work_.reset();
    timer_->cancel();
  }
}

template <typename In, typename Out>
void BatchCore<In, Out>::on_timer() {
  std::unique_lock lock(mutex_);
  armed_for_.reset();  // a call that was on its way when the timer was set anew sets it once more, to the same time
  armed_work_.reset();
  post_dispatch_if(plan(), lock);
}

template <typename In, typename Out>
void BatchCore<In, Out>::post_dispatch_if(bool wanted, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  if (wanted) {
    posting_.post([self = this->shared_from_this()] { self->dispatch(); });
  }
}

template <typename In, typename Out>
void BatchCore<In, Out>::dispatch() {
  std::vector<In> inputs;
  {
    const std::lock_guard lock(mutex_);
    scheduled_ = false;
    if (pending_.empty()) {
      return;  // cancelled meanwhile
    }
    if (!may_leave()) {
      arm();  // some were cancelled meanwhile, and the rest can wait
      return;
    }
    inputs = take_batch();
  }
  run(std::move(inputs));
}

template <typename In, typename Out>
std::vector<In> BatchCore<In, Out>::take_batch() {
  const std::size_t count = std::min(options_.max_batch_size, pending_.size());
  busy_ = true;
  const TimePoint now = timer_->now();
  std::vector<In> inputs;
  inputs.reserve(count);
  for (std::size_t place = 0; place < count; ++place) {
    Item& item = pending_.pop_front();
    item.state = ItemState::kRunning;
    item.place = place;
    running_.push_back(&item);
    inputs.push_back(std::move(item.item));
    recorder_.add_wait(now - item.submitted);
  }
  recorder_.add_batch(count);
  return inputs;
}

}  // namespace lockstep::detail
