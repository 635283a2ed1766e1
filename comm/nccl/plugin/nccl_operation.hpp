// NcclOperation: one started operation, from the caller's spans through the device and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/nccl/plugin/nccl_channel.hpp"
#include "comm/nccl/plugin/staging_memory.hpp"
#include "lockstep/comm/device_messages.hpp"

namespace lockstep::comm::nccl {

/// The order of launches on the device. NCCL keeps the host's (NCCL_LAUNCH_ORDER_IMPLICIT); where it cannot, each launch waits for the end of the one before,
/// by an event. With neither, two channels' kernels may start in different orders on two devices and wait for each other for ever.
class LaunchOrder {
 public:
  LaunchOrder(std::shared_ptr<const NcclContext> context, bool by_events) : context_(std::move(context)), by_events_(by_events) {}
  ~LaunchOrder();
  LaunchOrder(const LaunchOrder&) = delete;
  LaunchOrder& operator=(const LaunchOrder&) = delete;
  /// `place` is for messages.
  [[nodiscard]] Status before_launch(cudaStream_t stream, std::string_view place) const;
  [[nodiscard]] Status after_launch(cudaStream_t stream, std::string_view place);

 private:
  const std::shared_ptr<const NcclContext> context_;
  const bool by_events_;
  cudaEvent_t last_ = nullptr;
};

/// Reused by later operations of the same channel, so that a step allocates nothing once sizes have been seen. All that NCCL and the device touch is memory of
/// this object: after a failure the caller's buffers are its own again. Messages of a device's memory are the exception: they go from and to where they are,
/// on the caller's stream.
/// An all-to-all goes in two parts: the sizes over the hosts' communicator, which also tells who has not come, then the messages over NCCL with exact counts.
class NcclOperation {
 public:
  enum class Phase {
    kSizes,      ///< peers' sizes are on their way
    kReady,      ///< to be launched, when its turn comes
    kLaunching,  ///< NCCL is about to put it on the stream
    kRunning,    ///< on the stream, with the copy to the host behind it
    kComplete,
  };

  NcclOperation(std::shared_ptr<const NcclContext> context, std::shared_ptr<const StagingPool> pool, NcclChannel& channel);
  ~NcclOperation();
  NcclOperation(const NcclOperation&) = delete;
  NcclOperation& operator=(const NcclOperation&) = delete;

  [[nodiscard]] Status start_all_reduce(std::uint64_t id, std::span<const std::int32_t> values, ReduceOp op);
  [[nodiscard]] Status start_all_to_all(std::uint64_t id, const AllToAll& exchange, Communicator& control);
  /// The lists take the place of the sizes.
  [[nodiscard]] Status start_device_all_to_all(std::uint64_t id, const DeviceAllToAll& exchange, Communicator& control);
  /// Goes on as far as it can without blocking. `may_launch`: all that was started before has been launched.
  [[nodiscard]] Status advance(Communicator& control, LaunchOrder& order, bool may_launch);
  /// Waits for the sizes with an expired deadline, for the error that names who has not sent any.
  [[nodiscard]] Status blame(Communicator& control, const Deadline& deadline);

  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] Phase phase() const { return phase_; }
  [[nodiscard]] bool is_all_reduce() const { return is_all_reduce_; }
  [[nodiscard]] bool is_of_device() const { return layout_ != nullptr; }
  /// Its place in the stream is sure: the device may still have to come there.
  [[nodiscard]] bool is_enqueued() const { return phase_ >= Phase::kRunning; }
  /// Nobody waits for it any more; it is only looked after until the device is done.
  void release() { is_released_ = true; }
  [[nodiscard]] bool is_released() const { return is_released_; }
  [[nodiscard]] NcclChannel& channel() const { return *channel_; }
  /// How it ended, once complete: a message that does not fit fails here, and not at its sender.
  [[nodiscard]] const Status& status() const { return status_; }
  /// "all_reduce 17".
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] std::span<const std::int32_t> reduced() const;
  /// Copies what came to the caller's buffers.
  void deliver(std::span<std::size_t> received_bytes) const;

 private:
  /// What each rank tells each other one, before messages travel.
  struct Sizes {
    std::uint64_t bytes = 0;     ///< that come
    std::uint64_t capacity = 0;  ///< that the other may send
    std::uint64_t largest = 0;   ///< message of all that the rank sends: everybody knows the largest of all, and so does the same
  };

  void reset(std::uint64_t id, bool is_all_reduce);
  [[nodiscard]] Status copy_own() const;
  [[nodiscard]] Status check_sizes();
  /// The pieces of a device's messages, as their owner lays them out.
  void ask_layout();
  void lay_out();
  [[nodiscard]] Status launch(const LaunchOrder& order);
  [[nodiscard]] Status upload(std::size_t bytes);
  [[nodiscard]] Status launch_padded();
  [[nodiscard]] Status launch_exact();
  [[nodiscard]] Status finish_launch(LaunchOrder& order);
  [[nodiscard]] Status check_done();
  [[nodiscard]] std::size_t index_of_rank() const { return static_cast<std::size_t>(channel_->rank()); }

  const std::shared_ptr<const NcclContext> context_;
  NcclChannel* const channel_;
  std::uint64_t id_ = 0;
  bool is_all_reduce_ = false;
  Phase phase_ = Phase::kComplete;
  Status status_;
  ReduceOp op_ = ReduceOp::kSum;
  std::size_t count_ = 0;                  ///< of values
  DeviceMessageLayout* layout_ = nullptr;  ///< of messages of a device's memory; null: they are the host's
  cudaStream_t stream_ = nullptr;          ///< the channel's, or that of the device's messages
  bool is_released_ = false;
  std::vector<DeviceMessage> device_sends_;     ///< [size], by destination
  std::vector<DeviceMessage> device_receives_;  ///< [size], by source

  Ticket sizes_ticket_;
  std::vector<Sizes> told_;                             ///< [size], by destination
  std::vector<Sizes> heard_;                            ///< [size], by source
  std::vector<std::span<const std::byte>> told_spans_;  ///< [size]
  std::vector<std::span<std::byte>> heard_spans_;       ///< [size]
  std::vector<std::size_t> heard_bytes_;                ///< [size]
  std::vector<std::span<const std::byte>> senders_;     ///< [size], by destination; borrowed until the launch
  std::vector<std::span<std::byte>> receivers_;         ///< [size], by source; borrowed until deliver
  std::vector<std::size_t> slots_;                      ///< [size], by source: where its message is in host_in_
  std::size_t padded_bytes_ = 0;                        ///< one message's share of an all-gather; 0: exact pairs
  std::size_t out_bytes_ = 0;                           ///< that go to the device
  std::size_t in_bytes_ = 0;                            ///< that come from it
  std::vector<Piece> sends_;
  std::vector<Piece> receives_;

  PinnedBuffer host_out_;
  DeviceBuffer device_out_;
  DeviceBuffer device_in_;
  PinnedBuffer host_in_;
  cudaEvent_t done_ = nullptr;
};

}  // namespace lockstep::comm::nccl
