#include "comm/local/local_communicator.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"

namespace lockstep::comm {

namespace {

/// A limit for tickets that nobody waits for: a step has a handful.
constexpr std::size_t kPendingMax = 256;

std::int32_t reduce(std::int32_t left, std::int32_t right, ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      // Unsigned, for what a peer sends must not become undefined behaviour here; it wraps as every transport's sum does.
      return static_cast<std::int32_t>(static_cast<std::uint32_t>(left) + static_cast<std::uint32_t>(right));
    case ReduceOp::kMin:
      return std::min(left, right);
    case ReduceOp::kMax:
      return std::max(left, right);
  }
  return left;
}

}  // namespace

Status LocalCommunicator::begin(std::string_view call) {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: {} after a failed operation ({})", rank_, call, *failure_)};
  }
  if (state_->hooks.before) {
    return fail(state_->hooks.before(rank_, call));
  }
  return {};
}

Status LocalCommunicator::begin_start(std::string_view call) {
  if (pending_.size() >= kPendingMax) {
    return Error{ErrorCode::kResourceExhausted, fmt::format("rank {}: {} with {} operations in flight; wait for some first", rank_, call, pending_.size())};
  }
  return begin(call);
}

Status LocalCommunicator::fail(Status status) {
  if (!status) {
    failure_ = status.error().message;
  }
  return status;
}

Ticket LocalCommunicator::publish(Operation& operation) {
  state_->publish(operation, rank_);
  pending_.push_back(&operation);
  return Ticket{next_sequence_++};
}

Result<Ticket> LocalCommunicator::start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) {
  if (values.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("rank {}: all_reduce of 0 values; at least 1 is needed, an idle rank sends zeros", rank_)};
  }
  LOCKSTEP_RETURN_IF_ERROR(begin_start("start_all_reduce"));
  Operation& operation = state_->enter(next_sequence_);
  Contribution& mine = operation.contributions[static_cast<std::size_t>(rank_)];
  mine.kind = OperationKind::kAllReduce;
  mine.reduce_op = op;
  mine.values.assign(values.begin(), values.end());
  return publish(operation);
}

Result<Ticket> LocalCommunicator::start_all_to_all(const AllToAll& exchange) {
  const auto members = static_cast<std::size_t>(size());
  if (exchange.send.size() != members || exchange.receive.size() != members) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("rank {}: all_to_all with {} sends and {} receives; {} of each are needed, empty ones included",
                                                          rank_, exchange.send.size(), exchange.receive.size(), members)};
  }
  LOCKSTEP_RETURN_IF_ERROR(begin_start("start_all_to_all"));
  Operation& operation = state_->enter(next_sequence_);
  Contribution& mine = operation.contributions[static_cast<std::size_t>(rank_)];
  mine.kind = OperationKind::kAllToAll;
  // Copied: the caller has its buffers back after its own wait, which may be long before the slowest peer reads them.
  mine.messages.clear();
  mine.message_ends.clear();
  for (const std::span<const std::byte> message : exchange.send) {
    mine.messages.insert(mine.messages.end(), message.begin(), message.end());
    mine.message_ends.push_back(mine.messages.size());
  }
  mine.receivers.assign(exchange.receive.begin(), exchange.receive.end());
  return publish(operation);
}

Operation& LocalCommunicator::pending(Ticket ticket, OperationKind kind) const {
  const auto found = std::ranges::find(pending_, ticket.id, [](const Operation* operation) { return operation->sequence; });
  LOCKSTEP_CHECK(found != pending_.end(), "rank {}: ticket {} was never given out, or was waited for already", rank_, ticket.id);
  const OperationKind started = (*found)->contributions[static_cast<std::size_t>(rank_)].kind;
  LOCKSTEP_CHECK(started == kind, "rank {}: ticket {} belongs to another kind of operation", rank_, ticket.id);
  return **found;
}

Result<bool> LocalCommunicator::test(Ticket ticket) {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: test after a failed operation ({})", rank_, *failure_)};
  }
  const auto found = std::ranges::find(pending_, ticket.id, [](const Operation* operation) { return operation->sequence; });
  LOCKSTEP_CHECK(found != pending_.end(), "rank {}: ticket {} was never given out, or was waited for already", rank_, ticket.id);
  return state_->any_lost() || (*found)->settled.load(std::memory_order_acquire);
}

void LocalCommunicator::finish(Operation& operation) {
  std::erase(pending_, &operation);
  state_->finish(operation);
}

Status LocalCommunicator::wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) {
  LOCKSTEP_RETURN_IF_ERROR(begin("wait"));
  Operation& operation = pending(ticket, OperationKind::kAllReduce);
  const Contribution& first = operation.contributions.front();
  const Contribution& mine = operation.contributions[static_cast<std::size_t>(rank_)];
  LOCKSTEP_CHECK(result.size() == mine.values.size(), "rank {}: wait into {} values for an all_reduce of {}", rank_, result.size(), mine.values.size());
  LOCKSTEP_RETURN_IF_ERROR(fail(state_->await(operation, rank_, deadline)));
  std::ranges::copy(first.values, result.begin());
  for (std::size_t source = 1; source < operation.contributions.size(); ++source) {
    const std::vector<std::int32_t>& theirs = operation.contributions[source].values;
    for (std::size_t i = 0; i < result.size(); ++i) {
      result[i] = reduce(result[i], theirs[i], mine.reduce_op);
    }
  }
  finish(operation);
  return {};
}

Status LocalCommunicator::check_sizes(const Operation& operation) const {
  const std::vector<std::span<std::byte>>& receivers = operation.contributions[static_cast<std::size_t>(rank_)].receivers;
  for (int source = 0; source < size(); ++source) {
    const std::size_t sent = operation.contributions[static_cast<std::size_t>(source)].message_to(rank_).size();
    const std::size_t capacity = receivers[static_cast<std::size_t>(source)].size();
    if (sent > capacity) {
      return Error{ErrorCode::kDiverged,
                   fmt::format("operation {}: rank {} sent {} bytes to rank {}, which receives at most {} bytes; the two disagree about the plan",
                               operation.sequence, source, sent, rank_, capacity),
                   source};
    }
    if (sent == 0 && capacity > 0) {
      return Error{ErrorCode::kDiverged,
                   fmt::format("operation {}: rank {} sent nothing to rank {}, which expects up to {} bytes; the two disagree about the plan",
                               operation.sequence, source, rank_, capacity),
                   source};
    }
  }
  return {};
}

Status LocalCommunicator::wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) {
  LOCKSTEP_RETURN_IF_ERROR(begin("wait_all_to_all"));
  Operation& operation = pending(ticket, OperationKind::kAllToAll);
  LOCKSTEP_CHECK(received_bytes.size() == operation.contributions.size(), "rank {}: received_bytes has {} entries for {} ranks", rank_, received_bytes.size(),
                 operation.contributions.size());
  LOCKSTEP_RETURN_IF_ERROR(fail(state_->await(operation, rank_, deadline)));
  LOCKSTEP_RETURN_IF_ERROR(fail(check_sizes(operation)));
  const Contribution& mine = operation.contributions[static_cast<std::size_t>(rank_)];
  for (std::size_t source = 0; source < operation.contributions.size(); ++source) {
    const std::span<const std::byte> message = operation.contributions[source].message_to(rank_);
    std::ranges::copy(message, mine.receivers[source].begin());
    received_bytes[source] = message.size();
  }
  finish(operation);
  return {};
}

}  // namespace lockstep::comm
