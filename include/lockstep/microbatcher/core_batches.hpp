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
typename BatchCore<In, Out>::Ended BatchCore<In, Out>::finish(std::exception_ptr error, std::vector<T> results) {
  const std::lock_guard lock(mutex_);
  const bool wrong_count = !error && results.size() != running_size_;
  std::size_t failures = 0;
  running_.for_each([&](Item& item) {
    item.state = ItemState::kEnded;
    if (error) {
      item.outcome.emplace(error);
    } else if (wrong_count) {
      item.outcome.emplace(result_count_error(options_, results.size(), running_size_));
    } else if constexpr (std::is_same_v<T, BatchOutcome<Out>>) {
      item.outcome.emplace(std::move(results[item.place]));
      if (is_no_outcome(*item.outcome)) {
        item.outcome.emplace(no_outcome_error(options_));
      }
    } else {
      item.outcome.emplace(std::in_place_index<0>, std::move(results[item.place]));
    }
    failures += item.outcome->index();
  });
  recorder_.add_failures(failures);
  error = nullptr;  // the exception belongs to the submitters now: it must not be destroyed here while they read it
  busy_ = false;
  return Ended{.items = std::move(running_), .waiters = take_waiters_if_drained(), .begins_next = plan()};
}

template <typename In, typename Out>
template <typename PostNext>
void BatchCore<In, Out>::tell_and_continue(Ended ended, PostNext post_next) const {
  const bool tell_first = !ended.items.empty() && ended.items.front().executor == &posting_;
  if (!tell_first) {
    post_next();
  }
  tell_all(std::move(ended.items));
  if (tell_first) {
    post_next();
  }
  notify(ended.waiters);
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
  post_run_if(plan(), lock);
}

template <typename In, typename Out>
void BatchCore<In, Out>::post_run_if(bool wanted, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  if (wanted) {
    post_run();
  }
}

template <typename In, typename Out>
void BatchCore<In, Out>::post_run() {
  posting_.post([self = this->shared_from_this()] { self->run(); });
}

template <typename In, typename Out>
std::vector<In> BatchCore<In, Out>::take_batch() {
  std::vector<In> inputs;
  const std::lock_guard lock(mutex_);
  scheduled_ = false;
  if (pending_.empty()) {
    return inputs;  // cancelled meanwhile
  }
  if (!may_leave()) {
    arm();  // some were cancelled meanwhile, and the rest can wait
    return inputs;
  }
  running_size_ = std::min(options_.max_batch_size, pending_.size());
  inputs.reserve(running_size_);
  busy_ = true;
  const TimePoint now = timer_->now();
  running_ = pending_.take_while([&](Item& item) {
    if (inputs.size() == running_size_) {
      return false;
    }
    item.state = ItemState::kRunning;
    item.place = inputs.size();
    inputs.push_back(std::move(item.item));
    recorder_.add_wait(now - item.submitted);
    return true;
  });
  recorder_.add_batch(running_size_);
  return inputs;
}

}  // namespace lockstep::detail
