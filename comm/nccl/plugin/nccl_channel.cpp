#include "comm/nccl/plugin/nccl_channel.hpp"

#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "comm/mpi/bounded_call.hpp"

namespace lockstep::comm::nccl {

namespace {

ncclRedOp_t native_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return ncclSum;
    case ReduceOp::kMin:
      return ncclMin;
    case ReduceOp::kMax:
      return ncclMax;
  }
  return ncclSum;
}

/// Non-blocking: a blocking one cannot be aborted while a call waits for a peer that is gone.
ncclConfig_t non_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

}  // namespace

NcclChannel::NcclChannel(std::shared_ptr<const NcclContext> context, const std::string& name, bool urgent)
    : context_(std::move(context)), name_(name), place_(fmt::format("communicator \"{}\"", name)), urgent_(urgent) {}

Result<std::unique_ptr<NcclChannel>> NcclChannel::start(std::shared_ptr<const NcclContext> context, const ChannelOptions& options) {
  std::unique_ptr<NcclChannel> channel(new NcclChannel(std::move(context), options.name, options.urgent));
  LOCKSTEP_RETURN_IF_ERROR(channel->open_stream());
  channel->rank_ = options.rank;
  channel->size_ = options.size;
  ncclConfig_t config = non_blocking();
  LOCKSTEP_RETURN_IF_ERROR(
      channel->check(ncclCommInitRankConfig(&channel->native_, options.size, options.id, options.rank, &config), "ncclCommInitRankConfig"));
  return channel;
}

Status NcclChannel::open_stream() {
  int lowest = 0;
  int highest = 0;
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange", place_));
  return context_->check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, urgent_ ? highest : lowest), "cudaStreamCreateWithPriority", place_);
}

NcclChannel::~NcclChannel() {
  abort();
  if (stream_ != nullptr) {
    static_cast<void>(cudaStreamDestroy(stream_));
  }
}

Result<bool> NcclChannel::is_idle() {
  ncclResult_t state = ncclSuccess;
  LOCKSTEP_RETURN_IF_ERROR(check(ncclCommGetAsyncError(native_, &state), "ncclCommGetAsyncError"));
  LOCKSTEP_RETURN_IF_ERROR(check(state, "what NCCL does in the background"));
  return state != ncclInProgress;
}

Status NcclChannel::wait_until_idle(std::string_view call, const Deadline& deadline) {
  while (true) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool idle, is_idle());
    if (idle) {
      return {};
    }
    if (Status status = deadline.check(); !status) {
      status.error().message = fmt::format("rank {}: {} on {}: {}", context_->rank(), call, place_, status.error().message);
      return status;
    }
    std::this_thread::yield();
  }
}

Status NcclChannel::all_reduce(std::int32_t* values, std::size_t count, ReduceOp op) {
  const std::uint64_t bytes = count * sizeof(std::int32_t);
  return counted(check(ncclAllReduce(values, values, count, ncclInt32, native_op(op), native_, stream_), "ncclAllReduce"),
                 {.sent_bytes = bytes, .received_bytes = bytes});
}

Status NcclChannel::all_gather(const std::byte* ours, std::byte* everyones, std::size_t bytes, cudaStream_t stream) {
  return counted(check(ncclAllGather(ours, everyones, bytes, ncclUint8, native_, stream), "ncclAllGather"),
                 {.sent_bytes = bytes, .received_bytes = bytes * static_cast<std::uint64_t>(size_ - 1)});
}

Status NcclChannel::exchange(std::span<const Piece> sends, std::span<const Piece> receives, cudaStream_t stream) {
  LOCKSTEP_RETURN_IF_ERROR(check(ncclGroupStart(), "ncclGroupStart"));
  Status added = add_pieces(sends, receives, stream);
  Status ended = check(ncclGroupEnd(), "ncclGroupEnd");  // also after an error: a group that stays open swallows every later call
  const auto bytes = [this](std::span<const Piece> pieces) {
    return std::accumulate(pieces.begin(), pieces.end(), std::uint64_t{0},
                           [this](std::uint64_t sum, const Piece& piece) { return piece.peer == rank_ ? sum : sum + piece.bytes; });
  };
  return counted(added ? std::move(ended) : std::move(added), {.sent_bytes = bytes(sends), .received_bytes = bytes(receives)});
}

void NcclChannel::count(const DeviceTraffic& moved) {
  sent_bytes_.fetch_add(moved.sent_bytes, std::memory_order_relaxed);
  received_bytes_.fetch_add(moved.received_bytes, std::memory_order_relaxed);
}

Status NcclChannel::counted(Status called, const DeviceTraffic& moved) {
  if (called && captured_ == nullptr) {
    count(moved);
  } else if (called) {
    captured_->sent_bytes += moved.sent_bytes;
    captured_->received_bytes += moved.received_bytes;
  }
  return called;
}

Status NcclChannel::add_pieces(std::span<const Piece> sends, std::span<const Piece> receives, cudaStream_t stream) {
  for (const Piece& piece : sends) {
    LOCKSTEP_RETURN_IF_ERROR(check(ncclSend(piece.data, piece.bytes, ncclUint8, piece.peer, native_, stream), "ncclSend"));
  }
  for (const Piece& piece : receives) {
    LOCKSTEP_RETURN_IF_ERROR(check(ncclRecv(piece.data, piece.bytes, ncclUint8, piece.peer, native_, stream), "ncclRecv"));
  }
  return {};
}

Status NcclChannel::finalize(const Deadline& deadline) {
  LOCKSTEP_RETURN_IF_ERROR(check(ncclCommFinalize(native_), "ncclCommFinalize"));
  LOCKSTEP_RETURN_IF_ERROR(wait_until_idle("ncclCommFinalize", deadline));
  return check(ncclCommDestroy(std::exchange(native_, nullptr)), "ncclCommDestroy");
}

bool NcclChannel::abort(Duration limit) {
  if (native_ == nullptr) {
    return true;
  }
  return call_within(limit, [native = std::exchange(native_, nullptr)] { static_cast<void>(ncclCommAbort(native)); });
}

bool NcclChannel::drain(const Deadline& deadline) {
  while (stream_ != nullptr && cudaStreamQuery(stream_) == cudaErrorNotReady) {
    if (!deadline.check()) {
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

Result<std::unique_ptr<NcclChannel>> NcclChannel::shrink(std::span<const int> excluded, const Deadline& deadline) {
  std::unique_ptr<NcclChannel> made(new NcclChannel(context_, name_, urgent_));
  LOCKSTEP_RETURN_IF_ERROR(made->open_stream());
  std::vector<int> ranks(excluded.begin(), excluded.end());
  ncclConfig_t config = non_blocking();
  LOCKSTEP_RETURN_IF_ERROR(
      check(ncclCommShrink(native_, ranks.data(), static_cast<int>(ranks.size()), &made->native_, &config, NCCL_SHRINK_ABORT), "ncclCommShrink"));
  // The new one is there when the old one is no longer in progress, and of use when it is not in progress itself.
  LOCKSTEP_RETURN_IF_ERROR(wait_until_idle("ncclCommShrink", deadline));
  LOCKSTEP_RETURN_IF_ERROR(made->wait_until_idle("ncclCommShrink", deadline));
  LOCKSTEP_RETURN_IF_ERROR(made->check(ncclCommUserRank(made->native_, &made->rank_), "ncclCommUserRank"));
  LOCKSTEP_RETURN_IF_ERROR(made->check(ncclCommCount(made->native_, &made->size_), "ncclCommCount"));
  return made;
}

}  // namespace lockstep::comm::nccl
