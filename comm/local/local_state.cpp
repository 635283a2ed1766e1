#include "comm/local/local_state.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "lockstep/comm/launch.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::comm {

namespace {

/// A few microseconds of looking before sleeping: two context switches cost more. Only where each rank can have a core: otherwise the one who looks keeps the
/// one who is awaited from running.
constexpr int kSpinCount = 2000;

/// Bounds of one sleep. The upper one is for deadlines on a clock that is not ours (a test's), whose time advances without waking anybody; the lower one keeps
/// such a clock, when it lies in our past, from turning the wait into a busy loop.
constexpr Duration kSleepMin = std::chrono::microseconds(100);
constexpr Duration kSleepMax = std::chrono::milliseconds(5);

void pause_core() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

std::string_view reduce_op_name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kMin:
      return "min";
    case ReduceOp::kMax:
      return "max";
  }
  return "unknown";
}

bool same_operation(const Contribution& left, const Contribution& right) {
  if (left.kind != right.kind) {
    return false;
  }
  return left.kind == OperationKind::kAllToAll || (left.values.size() == right.values.size() && left.reduce_op == right.reduce_op);
}

}  // namespace

std::span<const std::byte> Contribution::message_to(int destination) const {
  const auto index = static_cast<std::size_t>(destination);
  const std::size_t begin = index == 0 ? 0 : message_ends[index - 1];
  return std::span(messages).subspan(begin, message_ends[index] - begin);
}

std::string describe_operation(const Contribution& contribution) {
  if (contribution.kind == OperationKind::kAllToAll) {
    return "all_to_all";
  }
  return fmt::format("all_reduce({}) of {} values", reduce_op_name(contribution.reduce_op), contribution.values.size());
}

LocalGroup::State::State(int group_size, LocalGroupHooks group_hooks)
    : size(group_size),
      hooks(std::move(group_hooks)),
      taken(static_cast<std::size_t>(group_size), false),
      sleepers_(static_cast<std::size_t>(group_size)),
      spin_count_(available_core_count() >= group_size ? kSpinCount : 0) {}

Operation& LocalGroup::State::enter(std::uint64_t sequence) {
  const std::lock_guard lock(mutex);
  LOCKSTEP_CHECK(sequence >= first_sequence_, "operation {} was already finished by all ranks; the oldest is {}", sequence, first_sequence_);
  while (first_sequence_ + in_flight_.size() <= sequence) {
    std::unique_ptr<Operation> operation;
    if (spare_.empty()) {
      operation = std::make_unique<Operation>();
      operation->contributions.resize(static_cast<std::size_t>(size));
    } else {
      operation = std::move(spare_.back());
      spare_.pop_back();
    }
    operation->sequence = first_sequence_ + in_flight_.size();
    operation->started.assign(static_cast<std::size_t>(size), false);
    operation->started_count = 0;
    operation->finished_count = 0;
    operation->settled.store(false, std::memory_order_relaxed);
    in_flight_.push_back(std::move(operation));
  }
  return *in_flight_[static_cast<std::size_t>(sequence - first_sequence_)];
}

void LocalGroup::State::publish(Operation& operation, int rank) {
  const std::lock_guard lock(mutex);
  const auto index = static_cast<std::size_t>(rank);
  if (operation.started_count == 0) {
    operation.first_rank = rank;
  }
  operation.started[index] = true;
  ++operation.started_count;
  const Contribution& first = operation.contributions[static_cast<std::size_t>(operation.first_rank)];
  const Contribution& mine = operation.contributions[index];
  if (operation.divergence.empty() && !same_operation(first, mine)) {
    operation.divergence = fmt::format("operation {}: rank {} started {}, but rank {} started {}; every rank must start the same operations in the same order",
                                       operation.sequence, operation.first_rank, describe_operation(first), rank, describe_operation(mine));
  }
  if (operation.started_count == size || !operation.divergence.empty()) {
    operation.settled.store(true, std::memory_order_release);
    wake_all();
  }
}

Status LocalGroup::State::await(const Operation& operation, int rank, const Deadline& deadline) {
  for (int spin = 0; spin < spin_count_ && !is_settled(operation); ++spin) {
    pause_core();
  }
  std::unique_lock lock(mutex);
  Sleeper& sleeper = sleepers_[static_cast<std::size_t>(rank)];
  while (!is_settled(operation)) {
    // The deadline's watch is the caller's code: it must not run under our lock.
    lock.unlock();
    if (Status status = deadline.check(); !status) {
      lock.lock();
      if (is_settled(operation)) {
        break;
      }
      status.error().message += missing_ranks(operation);
      return status;
    }
    const TimePoint now = std::chrono::steady_clock::now();
    const TimePoint until = std::clamp(deadline.next_check(), now + kSleepMin, now + kSleepMax);
    lock.lock();
    sleeper.asleep = true;
    sleeper.wake.wait_until(lock, until, [&] { return is_settled(operation); });
    sleeper.asleep = false;
  }
  return outcome(operation);
}

Status LocalGroup::State::outcome(const Operation& operation) const {
  if (const int lost = lost_rank_.load(std::memory_order_acquire); lost >= 0) {
    return Error{ErrorCode::kPeerLost, fmt::format("operation {}: rank {} is lost", operation.sequence, lost), lost};
  }
  if (!operation.divergence.empty()) {
    return Error{ErrorCode::kDiverged, operation.divergence};
  }
  return {};
}

std::string LocalGroup::State::missing_ranks(const Operation& operation) const {
  std::string missing;
  for (int rank = 0; rank < size; ++rank) {
    if (!operation.started[static_cast<std::size_t>(rank)]) {
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", rank);
    }
  }
  return fmt::format("; operation {} was not started by rank {}", operation.sequence, missing);
}

void LocalGroup::State::finish(Operation& operation) {
  const std::lock_guard lock(mutex);
  ++operation.finished_count;
  // Ranks may wait in another order than they start, so a finished operation stays until the older ones are finished too.
  std::size_t done = 0;
  while (done < in_flight_.size() && in_flight_[done]->finished_count == size) {
    spare_.push_back(std::move(in_flight_[done]));
    ++done;
  }
  in_flight_.erase(in_flight_.begin(), in_flight_.begin() + static_cast<std::ptrdiff_t>(done));
  first_sequence_ += done;
}

void LocalGroup::State::mark_lost(int rank) {
  const std::lock_guard lock(mutex);
  if (lost_rank_.load(std::memory_order_relaxed) < 0) {
    lost_rank_.store(rank, std::memory_order_release);
    wake_all();
  }
}

void LocalGroup::State::wake_all() {
  for (Sleeper& sleeper : sleepers_) {
    if (sleeper.asleep) {
      sleeper.wake.notify_one();
    }
  }
}

}  // namespace lockstep::comm
