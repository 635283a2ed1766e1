#include "comm/nccl/plugin/nccl_operation.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include <fmt/format.h>

namespace lockstep::comm::nccl {

namespace {

/// Up to so many bytes on each rank, small messages travel as one all-gather with room for the largest of all to all: one launch of NCCL's own tuning instead
/// of a pair for each peer. The limit is not measured: no device was at hand.
constexpr std::size_t kPaddedBytesMax = 65536;

}  // namespace

LaunchOrder::~LaunchOrder() {
  if (last_ != nullptr) {
    static_cast<void>(cudaEventDestroy(last_));
  }
}

Status LaunchOrder::before_launch(cudaStream_t stream, std::string_view place) const {
  if (last_ == nullptr) {
    return {};
  }
  return context_->check(cudaStreamWaitEvent(stream, last_, cudaEventWaitDefault), "cudaStreamWaitEvent", place);
}

Status LaunchOrder::after_launch(cudaStream_t stream, std::string_view place) {
  if (!by_events_) {
    return {};
  }
  if (last_ == nullptr) {
    LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaEventCreateWithFlags(&last_, cudaEventDisableTiming), "cudaEventCreateWithFlags", place));
  }
  return context_->check(cudaEventRecord(last_, stream), "cudaEventRecord", place);
}

NcclOperation::NcclOperation(std::shared_ptr<const NcclContext> context, std::shared_ptr<const StagingPool> pool, NcclChannel& channel)
    : context_(std::move(context)), channel_(&channel), device_out_(pool, channel.stream()), device_in_(pool, channel.stream()) {
  const auto size = static_cast<std::size_t>(channel.size());
  told_.resize(size);
  heard_.resize(size);
  heard_bytes_.resize(size);
  slots_.resize(size);
  device_sends_.resize(size);
  device_receives_.resize(size);
  for (std::size_t peer = 0; peer < size; ++peer) {
    told_spans_.push_back(std::as_bytes(std::span(&told_[peer], 1)));
    heard_spans_.push_back(std::as_writable_bytes(std::span(&heard_[peer], 1)));
  }
}

NcclOperation::~NcclOperation() {
  if (done_ != nullptr) {
    static_cast<void>(cudaEventDestroy(done_));
  }
}

void NcclOperation::reset(std::uint64_t id, bool is_all_reduce) {
  id_ = id;
  is_all_reduce_ = is_all_reduce;
  is_released_ = false;
  layout_ = nullptr;
  stream_ = channel_->stream();
  status_ = Status{};
  padded_bytes_ = 0;
  out_bytes_ = 0;
  in_bytes_ = 0;
  sends_.clear();
  receives_.clear();
}

Status NcclOperation::start_all_reduce(std::uint64_t id, std::span<const std::int32_t> values, ReduceOp op) {
  reset(id, true);
  op_ = op;
  count_ = values.size();
  out_bytes_ = values.size_bytes();
  in_bytes_ = values.size_bytes();
  LOCKSTEP_RETURN_IF_ERROR(host_out_.reserve(*context_, out_bytes_));
  std::memcpy(host_out_.data(), values.data(), out_bytes_);
  phase_ = Phase::kReady;
  return {};
}

Status NcclOperation::start_all_to_all(std::uint64_t id, const AllToAll& exchange, Communicator& control) {
  reset(id, false);
  senders_.assign(exchange.send.begin(), exchange.send.end());
  receivers_.assign(exchange.receive.begin(), exchange.receive.end());
  std::size_t largest = 0;
  for (std::size_t peer = 0; peer < senders_.size(); ++peer) {
    largest = peer == index_of_rank() ? largest : std::max(largest, senders_[peer].size());
  }
  for (std::size_t peer = 0; peer < senders_.size(); ++peer) {
    told_[peer] = {.bytes = senders_[peer].size(), .capacity = receivers_[peer].size(), .largest = largest};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(sizes_ticket_, control.start_all_to_all({.send = told_spans_, .receive = heard_spans_}));
  phase_ = Phase::kSizes;
  status_ = copy_own();
  return {};
}

Status NcclOperation::start_device_all_to_all(std::uint64_t id, const DeviceAllToAll& exchange, Communicator& control) {
  reset(id, false);
  layout_ = exchange.layout;
  stream_ = static_cast<cudaStream_t>(exchange.stream->native_handle());
  if (stream_ == nullptr) {
    return Error{ErrorCode::kInternal, fmt::format("rank {}: {}: stream \"{}\" is none of a GPU", channel_->rank(), describe(), exchange.stream->name())};
  }
  if (exchange.lists.send.empty()) {
    std::ranges::fill(heard_bytes_, 0);
    ask_layout();
    return {};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(sizes_ticket_, control.start_all_to_all(exchange.lists));
  phase_ = Phase::kSizes;
  return {};
}

void NcclOperation::ask_layout() {
  std::ranges::fill(device_sends_, DeviceMessage{});
  std::ranges::fill(device_receives_, DeviceMessage{});
  status_ = layout_->lay_out(heard_bytes_, device_sends_, device_receives_);
  if (!status_) {
    // Nothing of it is launched: what the peers launch will not end, and they learn from this rank's end why.
    phase_ = Phase::kComplete;
    return;
  }
  const auto add = [this](std::span<const DeviceMessage> messages, std::vector<Piece>& pieces) {
    for (std::size_t peer = 0; peer < messages.size(); ++peer) {
      if (peer != index_of_rank() && messages[peer].bytes > 0) {
        pieces.push_back({.peer = static_cast<int>(peer), .data = messages[peer].data, .bytes = messages[peer].bytes});
      }
    }
  };
  add(device_sends_, sends_);
  add(device_receives_, receives_);
  phase_ = sends_.empty() && receives_.empty() ? Phase::kComplete : Phase::kReady;
}

Status NcclOperation::copy_own() const {
  const std::size_t own = index_of_rank();
  const std::size_t bytes = senders_[own].size();
  const std::size_t capacity = receivers_[own].size();
  if (bytes > capacity || (bytes == 0) != (capacity == 0)) {
    return Error{ErrorCode::kDiverged, fmt::format("rank {}: {} sends {} bytes to itself and receives up to {}", own, describe(), bytes, capacity),
                 channel_->rank()};
  }
  return {};
}

Status NcclOperation::check_sizes() {
  for (std::size_t source = 0; source < heard_.size(); ++source) {
    const std::uint64_t bytes = heard_[source].bytes;
    const std::size_t capacity = receivers_[source].size();
    if (heard_bytes_[source] != sizeof(Sizes)) {
      return Error{ErrorCode::kDiverged,
                   fmt::format("rank {}: {}: rank {} told its sizes in {} bytes, expected {}", channel_->rank(), describe(), source, heard_bytes_[source],
                               sizeof(Sizes)),
                   static_cast<int>(source)};
    }
    if (status_ && source != index_of_rank() && (bytes > capacity || (bytes == 0) != (capacity == 0))) {
      // The others' messages still travel: who sent the right number must not fail by it.
      status_ = Error{ErrorCode::kDiverged,
                      fmt::format("rank {}: {}: rank {} sends {} bytes, and rank {} receives up to {} bytes from it: the two disagree about the plan",
                                  channel_->rank(), describe(), source, bytes, channel_->rank(), capacity),
                      static_cast<int>(source)};
    }
  }
  return {};
}

/// Where everything lies. Both sides of a pair leave out a message that does not fit, by the same two numbers.
void NcclOperation::lay_out() {
  std::uint64_t largest = 0;
  for (const Sizes& sizes : heard_) {
    largest = std::max(largest, sizes.largest);
  }
  const std::size_t size = heard_.size();
  if (largest == 0) {
    return;
  }
  if (largest <= kPaddedBytesMax / (size * size)) {
    padded_bytes_ = largest;
    out_bytes_ = size * padded_bytes_;
    in_bytes_ = size * out_bytes_;
    for (std::size_t source = 0; source < size; ++source) {
      slots_[source] = source * out_bytes_ + index_of_rank() * padded_bytes_;
    }
    return;
  }
  for (std::size_t peer = 0; peer < size; ++peer) {
    const auto rank = static_cast<int>(peer);
    const std::size_t sent = senders_[peer].size();
    if (peer != index_of_rank() && sent > 0 && sent <= heard_[peer].capacity) {
      sends_.push_back({.peer = rank, .data = nullptr, .bytes = sent});
      out_bytes_ += sent;
    }
    const std::size_t received = heard_[peer].bytes;
    slots_[peer] = in_bytes_;
    if (peer != index_of_rank() && received > 0 && received <= receivers_[peer].size()) {
      receives_.push_back({.peer = rank, .data = nullptr, .bytes = received});
      in_bytes_ += received;
    }
  }
}

Status NcclOperation::advance(Communicator& control, LaunchOrder& order, bool may_launch) {
  if (phase_ == Phase::kSizes) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool here, control.test(sizes_ticket_));
    if (!here) {
      return {};
    }
    // It is complete: the deadline is never looked at.
    LOCKSTEP_RETURN_IF_ERROR(control.wait_all_to_all(sizes_ticket_, heard_bytes_, Deadline::after(std::chrono::hours(1))));
    if (is_of_device()) {
      ask_layout();
    } else {
      LOCKSTEP_RETURN_IF_ERROR(check_sizes());
      lay_out();
      phase_ = out_bytes_ + in_bytes_ == 0 ? Phase::kComplete : Phase::kReady;
    }
  }
  if (phase_ == Phase::kReady && may_launch) {
    LOCKSTEP_RETURN_IF_ERROR(launch(order));
    phase_ = Phase::kLaunching;
  }
  if (phase_ == Phase::kLaunching) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool launched, channel_->is_idle());
    if (launched) {
      LOCKSTEP_RETURN_IF_ERROR(finish_launch(order));
      phase_ = Phase::kRunning;
    }
  }
  return phase_ == Phase::kRunning ? check_done() : Status{};
}

Status NcclOperation::upload(std::size_t bytes) {
  LOCKSTEP_RETURN_IF_ERROR(device_out_.reserve(bytes));
  return bytes == 0 ? Status{}
                    : context_->check(cudaMemcpyAsync(device_out_.data(), host_out_.data(), bytes, cudaMemcpyHostToDevice, channel_->stream()),
                                      "cudaMemcpyAsync", channel_->place());
}

Status NcclOperation::launch(const LaunchOrder& order) {
  LOCKSTEP_RETURN_IF_ERROR(order.before_launch(stream_, channel_->place()));
  if (is_of_device()) {
    return channel_->exchange(sends_, receives_, stream_);
  }
  if (!is_all_reduce_) {
    return padded_bytes_ > 0 ? launch_padded() : launch_exact();
  }
  LOCKSTEP_RETURN_IF_ERROR(upload(out_bytes_));
  return channel_->all_reduce(reinterpret_cast<std::int32_t*>(device_out_.data()), count_, op_);  // allocations are aligned for every type
}

Status NcclOperation::launch_padded() {
  LOCKSTEP_RETURN_IF_ERROR(host_out_.reserve(*context_, out_bytes_));
  for (std::size_t peer = 0; peer < senders_.size(); ++peer) {
    if (peer != index_of_rank()) {
      std::ranges::copy(senders_[peer], host_out_.data() + peer * padded_bytes_);
    }
  }
  LOCKSTEP_RETURN_IF_ERROR(upload(out_bytes_));
  LOCKSTEP_RETURN_IF_ERROR(device_in_.reserve(in_bytes_));
  return channel_->all_gather(device_out_.data(), device_in_.data(), out_bytes_, stream_);
}

Status NcclOperation::launch_exact() {
  LOCKSTEP_RETURN_IF_ERROR(host_out_.reserve(*context_, out_bytes_));
  LOCKSTEP_RETURN_IF_ERROR(device_out_.reserve(out_bytes_));
  LOCKSTEP_RETURN_IF_ERROR(device_in_.reserve(in_bytes_));
  std::size_t offset = 0;
  for (Piece& piece : sends_) {
    std::ranges::copy(senders_[static_cast<std::size_t>(piece.peer)], host_out_.data() + offset);
    piece.data = device_out_.data() + offset;
    offset += piece.bytes;
  }
  for (Piece& piece : receives_) {
    piece.data = device_in_.data() + slots_[static_cast<std::size_t>(piece.peer)];
  }
  LOCKSTEP_RETURN_IF_ERROR(upload(out_bytes_));
  return channel_->exchange(sends_, receives_, stream_);
}

Status NcclOperation::finish_launch(LaunchOrder& order) {
  LOCKSTEP_RETURN_IF_ERROR(order.after_launch(stream_, channel_->place()));
  if (in_bytes_ > 0) {
    LOCKSTEP_RETURN_IF_ERROR(host_in_.reserve(*context_, in_bytes_));
    const std::byte* const from = is_all_reduce_ ? device_out_.data() : device_in_.data();
    LOCKSTEP_RETURN_IF_ERROR(
        context_->check(cudaMemcpyAsync(host_in_.data(), from, in_bytes_, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync", channel_->place()));
  }
  if (done_ == nullptr) {
    LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreateWithFlags", channel_->place()));
  }
  return context_->check(cudaEventRecord(done_, stream_), "cudaEventRecord", channel_->place());
}

Status NcclOperation::check_done() {
  const cudaError_t code = cudaEventQuery(done_);
  if (code == cudaErrorNotReady) {
    return {};
  }
  LOCKSTEP_RETURN_IF_ERROR(context_->check(code, "cudaEventQuery", channel_->place()));
  phase_ = Phase::kComplete;
  return {};
}

Status NcclOperation::blame(Communicator& control, const Deadline& deadline) {
  return control.wait_all_to_all(sizes_ticket_, heard_bytes_, deadline);
}

std::span<const std::int32_t> NcclOperation::reduced() const {
  return {reinterpret_cast<const std::int32_t*>(host_in_.data()), count_};  // allocations are aligned for every type
}

void NcclOperation::deliver(std::span<std::size_t> received_bytes) const {
  for (std::size_t source = 0; source < receivers_.size(); ++source) {
    const bool own = source == index_of_rank();
    const std::size_t bytes = own ? senders_[source].size() : heard_[source].bytes;
    const std::byte* const from = own ? senders_[source].data() : host_in_.data() + slots_[source];
    if (bytes > 0) {
      std::memcpy(receivers_[source].data(), from, bytes);
    }
    received_bytes[source] = bytes;
  }
}

std::string NcclOperation::describe() const {
  return fmt::format("{} {}", is_all_reduce_ ? "all_reduce" : "all_to_all", id_);
}

}  // namespace lockstep::comm::nccl
