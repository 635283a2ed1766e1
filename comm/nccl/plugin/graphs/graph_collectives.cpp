#include "comm/nccl/plugin/graphs/graph_collectives.hpp"

#include <chrono>
#include <utility>

#include <fmt/format.h>

namespace lockstep::comm::nccl {

namespace {

/// ncclCommAbort tells the device first and then waits for the last graph's end, which is its owner's to bring about.
constexpr Duration kAbortGrace = std::chrono::milliseconds(50);

}  // namespace

Result<cudaStream_t> GraphCollectives::native(const device::Stream* stream, std::string_view what) const {
  auto* const found = static_cast<cudaStream_t>(stream->native_handle());
  if (found == nullptr) {
    return Error{ErrorCode::kInternal, fmt::format("rank {}: {}: stream \"{}\" is none of a GPU", channel_->rank(), what, stream->name())};
  }
  return found;
}

Status GraphCollectives::check_usable(std::string_view what) const {
  if (broken_) {
    return Error{broken_->code, fmt::format("rank {}: {} after a failure: {}", channel_->rank(), what, broken_->message)};
  }
  return context_->bind();
}

template <typename Call>
Status GraphCollectives::enqueue(const DeviceBlocks& blocks, std::string_view what, const Deadline& deadline, const Call& call) {
  LOCKSTEP_RETURN_IF_ERROR(check_usable(what));
  if (blocks.bytes == 0) {
    return {};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(cudaStream_t const stream, native(blocks.stream, what));
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaStreamIsCapturing(stream, &capturing), "cudaStreamIsCapturing", channel_->place()));
  if (capturing == cudaStreamCaptureStatusInvalidated) {
    return Error{ErrorCode::kInternal, fmt::format("rank {}: {} in a capture that an earlier call has made invalid", channel_->rank(), what)};
  }
  if (capturing == cudaStreamCaptureStatusActive) {
    return capture(stream, what, deadline, call);
  }
  LOCKSTEP_RETURN_IF_ERROR(turns_.take_turn(what, deadline));
  LOCKSTEP_RETURN_IF_ERROR(turns_.fail(order_.before_launch(stream, channel_->place())));
  LOCKSTEP_RETURN_IF_ERROR(turns_.fail(call(stream)));
  // Until NCCL has it on the stream: the caller's next piece of work would come before it.
  LOCKSTEP_RETURN_IF_ERROR(turns_.fail(channel_->wait_until_idle(what, deadline)));
  return turns_.fail(order_.after_launch(stream, channel_->place()));
}

template <typename Call>
Status GraphCollectives::capture(cudaStream_t stream, std::string_view what, const Deadline& deadline, const Call& call) {
  // No turn, and no event of the order: the graph has its place when it is launched. Nor may anything be asked about events while this thread captures.
  channel_->count_into(&captured_);
  Status status = call(stream);
  if (status) {
    status = channel_->wait_until_idle(what, deadline);
  }
  channel_->count_into(nullptr);
  if (!status) {
    // Nothing has travelled, and no graph with it will be launched: other channels are as well as before.
    abort(status.error());
  }
  return status;
}

Status GraphCollectives::all_gather(const DeviceBlocks& blocks, const Deadline& deadline) {
  return enqueue(blocks, "all_gather", deadline, [&](cudaStream_t stream) { return channel_->all_gather(blocks.send, blocks.receive, blocks.bytes, stream); });
}

Status GraphCollectives::all_to_all(const DeviceBlocks& blocks, const Deadline& deadline) {
  sends_.clear();
  receives_.clear();
  for (int peer = 0; peer < channel_->size(); ++peer) {
    const std::size_t offset = static_cast<std::size_t>(peer) * blocks.bytes;
    // NCCL only reads what is sent. The own block is a pair too: one launch for all.
    sends_.push_back({.peer = peer, .data = const_cast<std::byte*>(blocks.send) + offset, .bytes = blocks.bytes});
    receives_.push_back({.peer = peer, .data = blocks.receive + offset, .bytes = blocks.bytes});
  }
  return enqueue(blocks, "all_to_all", deadline, [&](cudaStream_t stream) { return channel_->exchange(sends_, receives_, stream); });
}

DeviceTraffic GraphCollectives::take_captured() {
  return std::exchange(captured_, {});
}

Status GraphCollectives::launch(device::Graph& graph, const DeviceTraffic& captured, device::Stream& stream, const Deadline& deadline) {
  constexpr std::string_view kWhat = "launch of a graph";
  LOCKSTEP_RETURN_IF_ERROR(check_usable(kWhat));
  LOCKSTEP_ASSIGN_OR_RETURN(cudaStream_t const on, native(&stream, kWhat));
  LOCKSTEP_RETURN_IF_ERROR(turns_.take_turn(kWhat, deadline));
  LOCKSTEP_RETURN_IF_ERROR(turns_.fail(order_.before_launch(on, channel_->place())));
  graph.launch(stream);
  channel_->count(captured);
  return turns_.fail(order_.after_launch(on, channel_->place()));
}

Status GraphCollectives::check() {
  if (!broken_) {
    LOCKSTEP_RETURN_IF_ERROR(channel_->is_idle());
  }
  return {};
}

Status GraphCollectives::finalize(const Deadline& deadline) {
  return broken_ ? Status{} : channel_->finalize(deadline);
}

void GraphCollectives::abort(const Error& why) {
  if (!broken_) {
    broken_ = why;
    channel_->abort(kAbortGrace);
  }
}

}  // namespace lockstep::comm::nccl
