// GraphCollectives: the collectives of fixed sizes on a channel of their own, uncaptured and in graphs.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "comm/nccl/plugin/nccl_channel.hpp"
#include "comm/nccl/plugin/nccl_operation.hpp"
#include "lockstep/comm/device_collectives.hpp"

namespace lockstep::comm::nccl {

/// What the collectives need of the communicator that they are part of.
class LaunchTurns {
 public:
  virtual ~LaunchTurns() = default;
  LaunchTurns(const LaunchTurns&) = delete;
  LaunchTurns& operator=(const LaunchTurns&) = delete;
  /// Until everything that was started earlier has been launched.      Errors  the deadline's, with `what` waits; NCCL's; those of an earlier failure.
  [[nodiscard]] virtual Status take_turn(std::string_view what, const Deadline& deadline) = 0;
  /// Notes a failure, which ends everything, and returns it.
  [[nodiscard]] virtual Status fail(Status status) = 0;

 protected:
  LaunchTurns() = default;
};

/// A graph is one launch in the order of launches, whatever is in it; within it, NCCL keeps the calls of one communicator in the order of their capture.
/// Ownership  the channel; the destructor leaves its end to the communicator.      Threads  those of DeviceCollectives; traffic and channel: any.
class GraphCollectives final : public DeviceCollectives {
 public:
  /// `turns` and `order` are the communicator's, which outlives this.
  GraphCollectives(std::shared_ptr<const NcclContext> context, std::unique_ptr<NcclChannel> channel, LaunchTurns& turns, LaunchOrder& order)
      : context_(std::move(context)), channel_(std::move(channel)), turns_(turns), order_(order) {}

  [[nodiscard]] Status all_gather(const DeviceBlocks& blocks, const Deadline& deadline) override;
  [[nodiscard]] Status all_to_all(const DeviceBlocks& blocks, const Deadline& deadline) override;
  [[nodiscard]] DeviceTraffic take_captured() override;
  [[nodiscard]] Status launch(device::Graph& graph, const DeviceTraffic& captured, device::Stream& stream, const Deadline& deadline) override;

  /// What has become of what was launched.
  [[nodiscard]] Status check();
  /// Lets all ranks end together, where nothing has failed. Collective.
  [[nodiscard]] Status finalize(const Deadline& deadline);
  /// Ends what runs. NCCL does not come back while graphs live that hold its calls: nobody waits for that here.
  void abort(const Error& why);
  [[nodiscard]] DeviceTraffic traffic() const { return channel_->traffic(); }

 private:
  [[nodiscard]] Result<cudaStream_t> native(const device::Stream* stream, std::string_view what) const;
  [[nodiscard]] Status check_usable(std::string_view what) const;
  template <typename Call>
  [[nodiscard]] Status enqueue(const DeviceBlocks& blocks, std::string_view what, const Deadline& deadline, const Call& call);
  template <typename Call>
  [[nodiscard]] Status capture(cudaStream_t stream, std::string_view what, const Deadline& deadline, const Call& call);

  const std::shared_ptr<const NcclContext> context_;
  const std::unique_ptr<NcclChannel> channel_;
  LaunchTurns& turns_;
  LaunchOrder& order_;
  DeviceTraffic captured_;
  std::vector<Piece> sends_;
  std::vector<Piece> receives_;
  std::optional<Error> broken_;  ///< set: a capture has failed, or everything has
};

}  // namespace lockstep::comm::nccl
