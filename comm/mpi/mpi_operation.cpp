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

/// A message to another host is preceded by its length, and cut into pieces that Open MPI's TCP sends without asking first (by default up to 64 KiB, its own
/// header included). Of a longer one it sends a part and waits for the receiver's word, which queues behind whatever the receiver is sending: two hosts that
/// exchange rows use a full-duplex link one way at a time then.
constexpr std::size_t kFrameBytes = sizeof(std::uint64_t);
constexpr std::size_t kPieceBytes = std::size_t{60} << 10U;

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

std::string too_long(int sender, std::size_t capacity, int receiver) {
  return fmt::format("rank {} sent more than the {} bytes that rank {} receives at most: the two disagree about the plan", sender, capacity, receiver);
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
  is_framed_ = false;
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
    slots_[static_cast<std::size_t>(source)].offset = static_cast<std::size_t>(source) * bytes;
    LOCKSTEP_RETURN_IF_ERROR(post_receive(source, slots_[static_cast<std::size_t>(source)].offset, bytes));
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

Status MpiOperation::post_receive(int source, std::size_t offset, std::size_t capacity, std::size_t piece_bytes) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int code = MPI_Irecv(incoming_.data() + offset, static_cast<int>(capacity), MPI_BYTE, source, tag_, runtime_->world(), &request);
  if (code != MPI_SUCCESS) {
    return mpi_error(code, runtime_->rank(), describe(), source);
  }
  requests_.push_back(request);
  transfers_.push_back({.peer = source, .receives = true, .piece_bytes = piece_bytes});
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
  completed_.resize(requests_.size());
  open_requests_ = requests_.size();
  status_ = copy_own(exchange);
  return {};
}

Status MpiOperation::post_receives(const AllToAll& exchange) {
  receivers_.assign(exchange.receive.begin(), exchange.receive.end());
  const auto frame_bytes = [this](int source) { return runtime_->is_remote(source) ? kFrameBytes : 0; };
  std::size_t bytes = 0;
  for (int source = 0; source < runtime_->size(); ++source) {
    slots_[static_cast<std::size_t>(source)].offset = bytes + frame_bytes(source);
    bytes += frame_bytes(source) + receivers_[static_cast<std::size_t>(source)].size();
  }
  grow(incoming_, bytes);
  for (int source = 0; source < runtime_->size(); ++source) {
    const std::size_t capacity = receivers_[static_cast<std::size_t>(source)].size();
    if (source == runtime_->rank() || capacity == 0) {
      continue;
    }
    const std::size_t frame = frame_bytes(source);
    is_framed_ = is_framed_ || frame > 0;
    const std::size_t first = frame > 0 ? std::min(frame + capacity, kPieceBytes) : capacity;
    LOCKSTEP_RETURN_IF_ERROR(post_receive(source, slots_[static_cast<std::size_t>(source)].offset - frame, first));
  }
  return {};
}

Status MpiOperation::post_rest(int source, std::size_t first_bytes) {
  Slot& slot = slots_[static_cast<std::size_t>(source)];
  std::uint64_t length = 0;
  if (first_bytes >= kFrameBytes) {
    std::memcpy(&length, incoming_.data() + slot.offset - kFrameBytes, kFrameBytes);
  }
  const std::size_t capacity = capacity_from(source);
  if (first_bytes < kFrameBytes || first_bytes != std::min(kFrameBytes + std::min<std::uint64_t>(length, kCountMax), kPieceBytes)) {
    return Error{ErrorCode::kDiverged,
                 fmt::format("rank {}: {}: rank {} announced {} bytes with a first piece of {}; do all hosts run the same version?", runtime_->rank(),
                             describe(), source, length, first_bytes),
                 source};
  }
  if (length > capacity) {
    return Error{ErrorCode::kDiverged, fmt::format("rank {}: {}; {}", runtime_->rank(), describe(), too_long(source, capacity, runtime_->rank())), source};
  }
  slot.received = length;
  const std::size_t end = kFrameBytes + length;
  for (std::size_t begin = kPieceBytes; begin < end; begin += kPieceBytes) {
    const std::size_t piece = std::min(kPieceBytes, end - begin);
    LOCKSTEP_RETURN_IF_ERROR(post_receive(source, slot.offset - kFrameBytes + begin, piece, piece));
  }
  open_requests_ += requests_.size() - statuses_.size();
  statuses_.resize(requests_.size());
  completed_.resize(requests_.size());
  return {};
}

Status MpiOperation::post_sends(const AllToAll& exchange) {
  std::size_t bytes = 0;
  for (const std::span<const std::byte> message : exchange.send) {
    bytes += kFrameBytes + message.size();
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
    const bool framed = runtime_->is_remote(peer);
    is_framed_ = is_framed_ || framed;
    const std::size_t frame = framed ? kFrameBytes : 0;
    const std::uint64_t length = message.size();
    std::memcpy(next, &length, frame);
    std::ranges::copy(message, next + frame);
    const std::size_t end = frame + message.size();
    const std::size_t piece = framed ? kPieceBytes : end;
    for (std::size_t begin = 0; begin < end; begin += piece) {
      LOCKSTEP_RETURN_IF_ERROR(post_send(peer, next + begin, std::min(piece, end - begin)));
    }
    next += end;
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
  if (is_framed_) {
    poll_framed();
    return complete_;
  }
  int done = 0;
  const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses_.data());
  if (code == MPI_SUCCESS && done == 0) {
    return false;
  }
  complete_ = true;
  if (Status outcome = collect_all(code); status_) {
    status_ = std::move(outcome);
  }
  return true;
}

void MpiOperation::poll_framed() {
  // A look takes one piece or two from each connection; where more have come, the link would wait for the next look.
  int count = 1;
  while (count > 0 && open_requests_ > 0) {
    const int code = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, completed_.data(), statuses_.data());
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
      status_ = mpi_error(code, runtime_->rank(), describe());
      complete_ = true;
      return;
    }
    open_requests_ -= static_cast<std::size_t>(std::max(count, 0));
    for (int i = 0; i < count; ++i) {
      const MPI_Status status = statuses_[static_cast<std::size_t>(i)];  // a copy: the rest of a message adds statuses
      const auto transfer = static_cast<std::size_t>(completed_[static_cast<std::size_t>(i)]);
      if (Status outcome = collect(code, transfer, status); !outcome && status_) {
        status_ = std::move(outcome);
      }
    }
  }
  // The others' parts are exchanged also when one message was refused, whose rest is never received: who is right can go on until it hears of the failure.
  complete_ = open_requests_ == 0;
}

Status MpiOperation::collect(int code, std::size_t transfer_index, const MPI_Status& status) {
  const Transfer transfer = transfers_[transfer_index];
  // Only a call that failed fills the statuses' error fields.
  if (code == MPI_ERR_IN_STATUS && status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING) {
    Error error = mpi_error(status.MPI_ERROR, runtime_->rank(), describe(), transfer.peer);
    if (error.code == ErrorCode::kDiverged) {
      error.message += fmt::format("; {}", too_long(transfer.peer, capacity_from(transfer.peer), runtime_->rank()));
    }
    return error;
  }
  if (!transfer.receives) {
    return {};
  }
  int count = 0;
  if (const int count_code = MPI_Get_count(&status, MPI_BYTE, &count); count_code != MPI_SUCCESS) {
    return mpi_error(count_code, runtime_->rank(), describe(), transfer.peer);
  }
  const auto bytes = static_cast<std::size_t>(count);
  if (transfer.piece_bytes > 0) {
    return bytes == transfer.piece_bytes ? Status{}
                                         : Error{ErrorCode::kDiverged,
                                                 fmt::format("rank {}: {}: a piece of {} bytes from rank {}, its message goes on with {}", runtime_->rank(),
                                                             describe(), bytes, transfer.peer, transfer.piece_bytes),
                                                 transfer.peer};
  }
  if (!is_all_reduce() && runtime_->is_remote(transfer.peer)) {
    return post_rest(transfer.peer, bytes);
  }
  slots_[static_cast<std::size_t>(transfer.peer)].received = bytes;
  return {};
}

Status MpiOperation::collect_all(int code) {
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
    return mpi_error(code, runtime_->rank(), describe());
  }
  if (code == MPI_ERR_IN_STATUS && transfers_.empty()) {
    return mpi_error(statuses_.front().MPI_ERROR, runtime_->rank(), describe());
  }
  for (std::size_t i = 0; i < transfers_.size(); ++i) {
    LOCKSTEP_RETURN_IF_ERROR(collect(code, i, statuses_[i]));
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
  std::string last;
  for (std::size_t i = 0; i < transfers_.size(); ++i) {
    int done = 0;
    if (requests_[i] == MPI_REQUEST_NULL || MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done != 0) {
      continue;
    }
    const Transfer& transfer = transfers_[i];
    const std::string_view what = !transfer.receives ? "not taken by" : transfer.piece_bytes > 0 ? "not all from" : "nothing from";
    std::string entry = fmt::format("{} rank {}", what, transfer.peer);
    if (entry != last) {  // the pieces of a message lie side by side
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", entry);
      last = std::move(entry);
    }
  }
  return missing;
}

}  // namespace lockstep::comm
