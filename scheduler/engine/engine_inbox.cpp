#include "scheduler/engine/engine_inbox.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace lockstep::scheduler {

Status EngineInbox::submit(std::span<std::unique_ptr<Sequence>> sequences) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) {
      return Error{ErrorCode::kCancelled, "this group is draining or stopped and takes no new requests: send it to another"};
    }
    const auto limit = static_cast<std::size_t>(max_pending_);
    if (sequences.size() > limit) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} texts are asked for at once, but only {} may be open (--max-pending): ask for fewer", sequences.size(), max_pending_)};
    }
    if (open_.size() + sequences.size() > limit) {
      return Error{ErrorCode::kResourceExhausted,
                   fmt::format("{} requests are open, the limit is {} (--max-pending): try again later", open_.size(), max_pending_)};
    }
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const RequestId id = sequences[i]->request.id;
      if (!open_.insert(id).second) {
        std::ranges::for_each(sequences.first(i), [this](const auto& sequence) { open_.erase(sequence->request.id); });
        return Error{ErrorCode::kInvalidArgument, fmt::format("request id {} is open already, expected one of its own for each request", id)};
      }
    }
    submitted_.insert(submitted_.end(), std::make_move_iterator(sequences.begin()), std::make_move_iterator(sequences.end()));
  }
  changed_.notify_one();
  return {};
}

void EngineInbox::end(RequestId id, FinishReason reason) {
  {
    const std::lock_guard lock(mutex_);
    ends_.push_back({.id = id, .reason = reason});
  }
  changed_.notify_one();
}

void EngineInbox::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void EngineInbox::wish(comm::ControlWish wish) {
  {
    const std::lock_guard lock(mutex_);
    wish_ = std::max(wish_, wish);
    wish_changed_ = true;
    closed_ = true;
  }
  changed_.notify_one();
}

void EngineInbox::request_ended(RequestId id) {
  const std::lock_guard lock(mutex_);
  open_.erase(id);
}

void EngineInbox::take(Messages& messages) {
  messages.submitted.clear();
  messages.ends.clear();
  const std::lock_guard lock(mutex_);
  std::swap(messages.submitted, submitted_);
  std::swap(messages.ends, ends_);
  messages.wish = wish_;
  wish_changed_ = false;
}

void EngineInbox::set_epoch(std::int32_t epoch) {
  const std::lock_guard lock(mutex_);
  epoch_ = epoch;
}

void EngineInbox::enter(std::int64_t step) {
  const std::lock_guard lock(mutex_);
  entered_step_ = step;
}

void EngineInbox::on_wake(std::int32_t from, std::int32_t epoch, std::int64_t step) {
  {
    const std::lock_guard lock(mutex_);
    if (epoch < epoch_ || (epoch == epoch_ && step <= entered_step_)) {
      return;  // we are in that step or past it: the sender just did not know
    }
    if (epoch == epoch_ && step == entered_step_ + 1) {
      woken_step_ = step;
    } else {
      // Begins with the field, as every divergence does: the metrics count by it.
      wake_error_ =
          Error{ErrorCode::kDiverged,
                fmt::format("wake from rank {} is for epoch {} step {}, but this rank has entered epoch {} step {}: it went past an agreement without us", from,
                            epoch, step, epoch_, entered_step_),
                from};
    }
  }
  changed_.notify_one();
}

Status EngineInbox::sleep(TimePoint until) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, until, [this] { return has_messages() || woken_step_ > entered_step_ || wake_error_.has_value(); });
  return wake_error_ ? Status(*wake_error_) : Status{};
}

Result<bool> EngineInbox::woken() {
  const std::lock_guard lock(mutex_);
  if (wake_error_) {
    return *wake_error_;
  }
  return woken_step_ > entered_step_;
}

std::int32_t EngineInbox::open_requests() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int32_t>(open_.size());
}

}  // namespace lockstep::scheduler
