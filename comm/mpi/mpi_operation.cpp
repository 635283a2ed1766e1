#include "comm/mpi/mpi_operation.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>

namespace lockstep::comm {

namespace {

/// MPI 3 counts in int.
constexpr std::size_t kCountMax = static_cast<std::size_t>(std::numeric_limits<int>::max());

/// Up to here an all-reduce goes straight from each rank to each other: one hop and little code. MPI_Iallreduce builds a schedule for each call and walks
/// through it at each poll; measured with 2 ranks and 30 values, step agreement takes 3.6 us with it. Beyond, n messages a rank cost more than log n rounds.
constexpr int kDirectRanksMax = 8;
constexpr std::size_t kDirectBytesMax = 4096;  // what transports send without asking first

void reduce(std::int32_t& result, std::int32_t value, ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      // Unsigned: a peer's value must not become undefined behaviour here.
      result = static_cast<std::int32_t>(static_cast<std::uint32_t>(result) + static_cast<std::uint32_t>(value));
      break;
    case ReduceOp::kMin:
      result = std::min(result, value);
      break;
    case ReduceOp::kMax:
      result = std::max(result, value);
      break;
  }
}

MPI_Op mpi_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return MPI_SUM;
    case ReduceOp::kMin:
      return MPI_MIN;
    case ReduceOp::kMax:
      return MPI_MAX;
  }
  return MPI_OP_NULL;
}

/// A sum wraps, which MPI promises of unsigned numbers alone; the bits are the same.
MPI_Datatype mpi_type(ReduceOp op) {
  return op == ReduceOp::kSum ? MPI_UINT32_T : MPI_INT32_T;
}

/// Kinds of operations, told apart by their messages' tags: ranks that start different ones wait for each other, and never take the one for the other.
constexpr std::uint64_t kKinds = 4;
constexpr std::uint64_t kAllToAllKind = 0;
std::uint64_t kind_of(ReduceOp op) {
  return kAllToAllKind + 1 + static_cast<std::uint64_t>(op);
}

/// Makes room without giving any back, nor clearing again what a smaller operation used in between.
void grow(std::vector<std::byte>& buffer, std::size_t bytes) {
  if (buffer.size() < bytes) {
    buffer.resize(bytes);
  }
}

template <typename Spans>
Status check_lengths(const Spans& spans, int rank, std::string_view what) {
  for (std::size_t peer = 0; peer < spans.size(); ++peer) {
    if (spans[peer].size() > kCountMax) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("rank {}: all_to_all {} of {} bytes with rank {}; MPI's limit is {}: split the step", rank, what,
                                                            spans[peer].size(), peer, kCountMax)};
    }
  }
  return {};
}

}  // namespace

Status MpiOperation::check(std::span<const std::int32_t> values, int rank) {
  if (values.size() > kCountMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("rank {}: all_reduce of {} values; MPI's limit is {}", rank, values.size(), kCountMax)};
  }
  return {};
}

Status MpiOperation::check(const AllToAll& exchange, int rank) {
  LOCKSTEP_RETURN_IF_ERROR(check_lengths(exchange.send, rank, "send"));
  return check_lengths(exchange.receive, rank, "receive");
}

void MpiOperation::reset(const MpiRuntime& runtime, std::uint64_t id, std::uint64_t kind) {
  runtime_ = &runtime;
  id_ = id;
  // Operations in flight have different tags as long as they are fewer than there are tags, which the communicator's limit sees to.
  const std::uint64_t tags_per_kind = (static_cast<std::uint64_t>(runtime.tag_max()) + 1) / kKinds;
  tag_ = static_cast<int>(id % tags_per_kind * kKinds + kind);
  complete_ = false;
  status_ = Status{};
  reduced_.clear();
  slots_.assign(static_cast<std::size_t>(runtime.size()), Slot{});
  receivers_.clear();
  requests_.clear();
  transfers_.clear();
}

Status MpiOperation::start_all_reduce(const MpiRuntime& runtime, std::uint64_t id, std::span<const std::int32_t> values, ReduceOp op) {
  reset(runtime, id, kind_of(op));
  contributed_.assign(values.begin(), values.end());
  reduced_.assign(values.begin(), values.end());
  op_ = op;
  // All ranks decide alike: size and length are the same on all.
  if (runtime.size() > 1 && runtime.size() <= kDirectRanksMax && values.size_bytes() <= kDirectBytesMax) {
    return start_direct_all_reduce();
  }
  requests_.push_back(MPI_REQUEST_NULL);
  statuses_.resize(1);
  const int code =
      MPI_Iallreduce(contributed_.data(), reduced_.data(), static_cast<int>(values.size()), mpi_type(op), mpi_op(op), runtime.world(), requests_.data());
  return code == MPI_SUCCESS ? Status{} : mpi_error(code, runtime.rank(), describe());
}

Status MpiOperation::start_direct_all_reduce() {
  const std::size_t bytes = contributed_.size() * sizeof(std::int32_t);
  grow(incoming_, bytes * slots_.size());
  for (int step = 1; step < runtime_->size(); ++step) {
    const int source = (runtime_->rank() + runtime_->size() - step) % runtime_->size();
    LOCKSTEP_RETURN_IF_ERROR(post_receive(source, static_cast<std::size_t>(source) * bytes, bytes));
  }
  for (int step = 1; step < runtime_->size(); ++step) {
    LOCKSTEP_RETURN_IF_ERROR(post_send((runtime_->rank() + step) % runtime_->size(), contributed_.data(), bytes));
  }
  statuses_.resize(requests_.size());
  return {};
}

Status MpiOperation::reduce_received() {
  const std::size_t bytes = contributed_.size() * sizeof(std::int32_t);
  for (int source = 0; source < runtime_->size(); ++source) {
    const Slot slot = slots_[static_cast<std::size_t>(source)];
    if (source == runtime_->rank()) {
      continue;
    }
    if (slot.received != bytes) {
      return Error{ErrorCode::kDiverged,
                   fmt::format("rank {}: {} of {} bytes, but rank {} sent {}: the two disagree about the plan", runtime_->rank(), describe(), bytes, source,
                               slot.received),
                   source};
    }
    const std::byte* from = incoming_.data() + slot.offset;
    for (std::int32_t& result : reduced_) {
      std::int32_t value = 0;
      std::memcpy(&value, from, sizeof value);
      from += sizeof value;
      reduce(result, value, op_);
    }
  }
  return {};
}

Status MpiOperation::post_receive(int source, std::size_t offset, std::size_t capacity) {
  slots_[static_cast<std::size_t>(source)].offset = offset;
  MPI_Request request = MPI_REQUEST_NULL;
  const int code = MPI_Irecv(incoming_.data() + offset, static_cast<int>(capacity), MPI_BYTE, source, tag_, runtime_->world(), &request);
  if (code != MPI_SUCCESS) {
    return mpi_error(code, runtime_->rank(), describe(), source);
  }
  requests_.push_back(request);
  transfers_.push_back({.peer = source, .receives = true});
  return {};
}

Status MpiOperation::post_send(int peer, const void* data, std::size_t bytes) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int code = MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, peer, tag_, runtime_->world(), &request);
  if (code != MPI_SUCCESS) {
    return mpi_error(code, runtime_->rank(), describe(), peer);
  }
  requests_.push_back(request);
  transfers_.push_back({.peer = peer, .receives = false});
  return {};
}

std::size_t MpiOperation::capacity_from(int source) const {
  return is_all_reduce() ? contributed_.size() * sizeof(std::int32_t) : receivers_[static_cast<std::size_t>(source)].size();
}

Status MpiOperation::start_all_to_all(const MpiRuntime& runtime, std::uint64_t id, const AllToAll& exchange) {
  reset(runtime, id, kAllToAllKind);
  // Receives first: a message that finds its receive posted is not stored and copied once more.
  LOCKSTEP_RETURN_IF_ERROR(post_receives(exchange));
  LOCKSTEP_RETURN_IF_ERROR(post_sends(exchange));
  statuses_.resize(requests_.size());
  status_ = copy_own(exchange);
  return {};
}

Status MpiOperation::post_receives(const AllToAll& exchange) {
  receivers_.assign(exchange.receive.begin(), exchange.receive.end());
  std::size_t bytes = 0;
  for (std::size_t source = 0; source < receivers_.size(); ++source) {
    slots_[source].offset = bytes;
    bytes += receivers_[source].size();
  }
  grow(incoming_, bytes);
  for (int source = 0; source < runtime_->size(); ++source) {
    const std::size_t capacity = receivers_[static_cast<std::size_t>(source)].size();
    if (source == runtime_->rank() || capacity == 0) {
      continue;
    }
    LOCKSTEP_RETURN_IF_ERROR(post_receive(source, slots_[static_cast<std::size_t>(source)].offset, capacity));
  }
  return {};
}

Status MpiOperation::post_sends(const AllToAll& exchange) {
  std::size_t bytes = 0;
  for (const std::span<const std::byte> message : exchange.send) {
    bytes += message.size();
  }
  grow(outgoing_, bytes);
  std::byte* next = outgoing_.data();
  // Each rank begins with the peer after it: otherwise all would send to rank 0 first, and it would be the last to be done.
  for (int step = 1; step < runtime_->size(); ++step) {
    const int peer = (runtime_->rank() + step) % runtime_->size();
    const std::span<const std::byte> message = exchange.send[static_cast<std::size_t>(peer)];
    if (message.empty()) {
      continue;
    }
    std::ranges::copy(message, next);
    LOCKSTEP_RETURN_IF_ERROR(post_send(peer, next, message.size()));
    next += message.size();
  }
  return {};
}

Status MpiOperation::copy_own(const AllToAll& exchange) {
  const auto own = static_cast<std::size_t>(runtime_->rank());
  const std::span<const std::byte> message = exchange.send[own];
  const std::size_t capacity = exchange.receive[own].size();
  if (message.size() > capacity || message.empty() != (capacity == 0)) {
    return Error{ErrorCode::kDiverged, fmt::format("rank {}: {} sends {} bytes to itself and receives up to {}", own, describe(), message.size(), capacity),
                 runtime_->rank()};
  }
  std::ranges::copy(message, incoming_.data() + slots_[own].offset);
  slots_[own].received = message.size();
  return {};
}

bool MpiOperation::poll() {
  if (complete_) {
    return true;
  }
  int done = 0;
  const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses_.data());
  if (code == MPI_SUCCESS && done == 0) {
    return false;
  }
  complete_ = true;
  if (Status outcome = collect(code); status_) {
    status_ = std::move(outcome);
  }
  return true;
}

Status MpiOperation::collect(int code) {
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
    return mpi_error(code, runtime_->rank(), describe());
  }
  if (code == MPI_ERR_IN_STATUS && transfers_.empty()) {
    return mpi_error(statuses_.front().MPI_ERROR, runtime_->rank(), describe());
  }
  for (std::size_t i = 0; i < transfers_.size(); ++i) {
    const Transfer transfer = transfers_[i];
    // Only a call that failed fills the statuses' error fields.
    if (code == MPI_ERR_IN_STATUS && statuses_[i].MPI_ERROR != MPI_SUCCESS && statuses_[i].MPI_ERROR != MPI_ERR_PENDING) {
      Error error = mpi_error(statuses_[i].MPI_ERROR, runtime_->rank(), describe(), transfer.peer);
      if (error.code == ErrorCode::kDiverged) {
        error.message += fmt::format("; rank {} sent more than the {} bytes that rank {} receives at most: the two disagree about the plan", transfer.peer,
                                     capacity_from(transfer.peer), runtime_->rank());
      }
      return error;
    }
    if (transfer.receives) {
      int received = 0;
      if (const int count_code = MPI_Get_count(&statuses_[i], MPI_BYTE, &received); count_code != MPI_SUCCESS) {
        return mpi_error(count_code, runtime_->rank(), describe(), transfer.peer);
      }
      slots_[static_cast<std::size_t>(transfer.peer)].received = static_cast<std::size_t>(received);
    }
  }
  if (code != MPI_SUCCESS) {
    return mpi_error(code, runtime_->rank(), describe());
  }
  return is_all_reduce() && !transfers_.empty() ? reduce_received() : Status{};
}

void MpiOperation::deliver(std::span<std::size_t> received_bytes) const {
  for (std::size_t source = 0; source < slots_.size(); ++source) {
    const Slot slot = slots_[source];
    std::ranges::copy(std::span(incoming_).subspan(slot.offset, slot.received), receivers_[source].begin());
    received_bytes[source] = slot.received;
  }
}

std::string MpiOperation::describe() const {
  return fmt::format("{} {}", is_all_reduce() ? "all_reduce" : "all_to_all", id_);
}

std::string MpiOperation::missing_peers() {
  std::string missing;
  for (std::size_t i = 0; i < transfers_.size(); ++i) {
    int done = 0;
    if (requests_[i] == MPI_REQUEST_NULL || MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done != 0) {
      continue;
    }
    missing += fmt::format("{}{} rank {}", missing.empty() ? "" : ", ", transfers_[i].receives ? "nothing from" : "not taken by", transfers_[i].peer);
  }
  return missing;
}

}  // namespace lockstep::comm
