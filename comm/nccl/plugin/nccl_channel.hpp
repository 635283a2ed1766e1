// NcclChannel: one NCCL communicator with the stream that its operations run on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <nccl.h>
#include <span>
#include <string>
#include <string_view>

#include "comm/nccl/plugin/nccl_context.hpp"

namespace lockstep::comm::nccl {

/// One side of a pair's message, in the device's memory.
struct Piece {
  int peer = 0;
  std::byte* data = nullptr;
  std::size_t bytes = 0;  ///< exact: both sides name the same number; none is no message
};

struct ChannelOptions {
  std::string name;  ///< "agreement", for messages
  ncclUniqueId id{};
  int rank = 0;
  int size = 1;
  bool urgent = false;  ///< the device serves its stream before others
};

/// All calls return at once. One that NCCL has not ended by then goes on in the background: nothing else may be called, and nothing enqueued on the stream,
/// until `is_idle` says true. Ownership  the NCCL communicator and the stream; the destructor aborts what was not finalized.      Threads  one at a time.
class NcclChannel {
 public:
  /// Starts to connect the ranks; `is_idle` says when all are there. Collective.
  [[nodiscard]] static Result<std::unique_ptr<NcclChannel>> start(std::shared_ptr<const NcclContext> context, const ChannelOptions& options);
  ~NcclChannel();
  NcclChannel(const NcclChannel&) = delete;
  NcclChannel& operator=(const NcclChannel&) = delete;

  /// Whether the last call has ended.      Errors  NCCL's, also of operations that run.
  [[nodiscard]] Result<bool> is_idle();
  /// Errors  of is_idle; the deadline's, which names `call`.
  [[nodiscard]] Status wait_until_idle(std::string_view call, const Deadline& deadline);

  /// In place, on [count].
  [[nodiscard]] Status all_reduce(std::int32_t* values, std::size_t count, ReduceOp op);
  /// `bytes` of each rank, the same on all, side by side in the ranks' order.      stream  the channel's, or another.
  [[nodiscard]] Status all_gather(const std::byte* ours, std::byte* everyones, std::size_t bytes, cudaStream_t stream);
  /// All messages of one exchange as one launch: NCCL would wait for the first send before it began the first receive.      stream  as above.
  [[nodiscard]] Status exchange(std::span<const Piece> sends, std::span<const Piece> receives, cudaStream_t stream);

  /// Lets all ranks end together. Collective.      Errors  of is_idle, and the deadline's.
  [[nodiscard]] Status finalize(const Deadline& deadline);
  /// Ends what runs, at once; peers are told nothing. The channel is of no use afterwards. False: NCCL did not come back in time.
  bool abort(Duration limit = kAbortLimit);
  /// Until the stream has nothing left.
  [[nodiscard]] bool drain(const Deadline& deadline);
  /// A channel of the members that stay, who all call it, with the same `excluded`; it ends what runs here. This one can only be aborted afterwards.
  [[nodiscard]] Result<std::unique_ptr<NcclChannel>> shrink(std::span<const int> excluded, const Deadline& deadline);

  /// What later calls are given is added there and not to `traffic`; null: to that again. For calls that a graph will make, and that are counted then.
  void count_into(DeviceTraffic* captured) { captured_ = captured; }
  void count(const DeviceTraffic& moved);
  /// What it was given to send and to receive so far.      Threads  any.
  [[nodiscard]] DeviceTraffic traffic() const { return {.sent_bytes = sent_bytes_.load(), .received_bytes = received_bytes_.load()}; }

  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  [[nodiscard]] const std::string& place() const { return place_; }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }

 private:
  /// ncclCommAbort stops kernels and joins threads: milliseconds. Where it does not return, the process has to leave by _exit anyway.
  static constexpr Duration kAbortLimit = std::chrono::seconds(5);

  NcclChannel(std::shared_ptr<const NcclContext> context, const std::string& name, bool urgent);
  [[nodiscard]] Status open_stream();
  [[nodiscard]] Status check(ncclResult_t code, std::string_view call) const { return context_->check(code, call, place_, native_); }
  /// Counts what a call was given, where it was taken.
  [[nodiscard]] Status counted(Status called, const DeviceTraffic& moved);
  [[nodiscard]] Status add_pieces(std::span<const Piece> sends, std::span<const Piece> receives, cudaStream_t stream);

  const std::shared_ptr<const NcclContext> context_;
  const std::string name_;
  const std::string place_;  ///< for messages
  const bool urgent_;
  int rank_ = 0;
  int size_ = 1;
  ncclComm_t native_ = nullptr;
  cudaStream_t stream_ = nullptr;
  DeviceTraffic* captured_ = nullptr;  ///< see count_into
  std::atomic<std::uint64_t> sent_bytes_{0};
  std::atomic<std::uint64_t> received_bytes_{0};
};

}  // namespace lockstep::comm::nccl
