// NcclCommunicator: a rank's GPU among those of the other ranks, for messages in the host's memory and in the GPU's own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/nccl/agreement_choice.hpp"
#include "comm/nccl/plugin/graphs/graph_collectives.hpp"
#include "comm/nccl/plugin/nccl_channel.hpp"
#include "comm/nccl/plugin/nccl_operation.hpp"
#include "lockstep/comm/device_messages.hpp"

namespace lockstep::comm::nccl {

/// All-reduces run on a channel of their own with an urgent stream, all-to-alls on others in turn: an agreement does not queue behind messages.
/// Launches are made in the order of the starts, by whoever calls, and none before all earlier ones: so they have the same order on all ranks.
class NcclCommunicator final : public Communicator, private DeviceMessages, private LaunchTurns {
 public:
  /// Collective.      Errors  as make_nccl_over_control.
  [[nodiscard]] static Result<std::unique_ptr<Communicator>> create(std::unique_ptr<Communicator> control, const CommOptions& options);
  ~NcclCommunicator() override;

  [[nodiscard]] int rank() const override { return control_->rank(); }
  [[nodiscard]] int size() const override { return control_->size(); }
  [[nodiscard]] Result<Ticket> start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) override;
  [[nodiscard]] Result<Ticket> start_all_to_all(const AllToAll& exchange) override;
  [[nodiscard]] Result<bool> test(Ticket ticket) override;
  [[nodiscard]] Status wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) override;
  [[nodiscard]] Status wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) override;
  [[nodiscard]] std::string_view transport() const override { return "nccl"; }
  [[nodiscard]] std::string_view agreement_transport() const override { return host_agreement_ ? control_->transport() : transport(); }
  [[nodiscard]] std::string agreement_reason() const override { return agreement_reason_; }
  [[nodiscard]] DeviceMessages* device_messages() override { return this; }
  [[nodiscard]] DeviceTraffic device_traffic() const override;

 private:
  [[nodiscard]] Result<Ticket> start_device_all_to_all(const DeviceAllToAll& exchange) override;
  [[nodiscard]] Status wait_until_enqueued(Ticket ticket, const Deadline& deadline) override;
  [[nodiscard]] Status check() override;
  [[nodiscard]] Result<DeviceCollectives*> open_collectives(const Deadline& deadline) override;
  [[nodiscard]] Status take_turn(std::string_view what, const Deadline& deadline) override;
  /// After a failure nothing goes on: kernels that run are ended, so that the device is free for whatever comes next.
  [[nodiscard]] Status fail(Status status) override;

  /// An all-reduce that the hosts' communicator carries.
  struct Forwarded {
    std::uint64_t id = 0;
    Ticket ticket;
  };

  NcclCommunicator(std::unique_ptr<Communicator> control, std::shared_ptr<const NcclContext> context, bool chain_by_events, bool shares_cores);
  /// Ids of communicators that rank 0 makes, on all ranks.
  [[nodiscard]] Status share_ids(std::span<ncclUniqueId> ids, const Deadline& deadline);
  [[nodiscard]] Status open_channels(const Deadline& deadline);
  [[nodiscard]] Status choose_agreement_transport(AgreementTransport wish, const Deadline& deadline);

  [[nodiscard]] Status check_startable(std::string_view call) const;
  [[nodiscard]] std::unique_ptr<NcclOperation> take_spare(std::size_t channel);
  [[nodiscard]] Result<Ticket> add_pending(std::unique_ptr<NcclOperation> operation, Status started);
  [[nodiscard]] NcclOperation* find(Ticket ticket) const;
  [[nodiscard]] std::vector<Forwarded>::iterator find_forwarded(Ticket ticket);
  /// Brings everything on that can go on without blocking.
  [[nodiscard]] Status progress();
  /// Until `is_done` says true.      Errors  the deadline's with `what` is waited for, and by whom; NCCL's.
  template <typename IsDone>
  [[nodiscard]] Status poll(const IsDone& is_done, std::string_view what, const Deadline& deadline);
  [[nodiscard]] Status late(Status expired, std::string_view what, const Deadline& deadline);
  [[nodiscard]] Status complete(NcclOperation& operation, const Deadline& deadline);
  [[nodiscard]] Status wait_forwarded(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline);
  void give_back(const NcclOperation& operation);
  /// Gives back what nobody waits for and the device is done with.
  void collect_released();
  /// At the end: until the device is done with what nobody waits for. False: it is not, or somebody waits.
  [[nodiscard]] bool settle();
  bool end_channels();

  std::unique_ptr<Communicator> control_;
  const std::shared_ptr<const NcclContext> context_;
  const int spin_polls_;
  std::shared_ptr<const StagingPool> pool_;
  std::vector<std::unique_ptr<NcclChannel>> channels_;  ///< the agreement's, then those of exchanges
  LaunchOrder order_;
  std::unique_ptr<GraphCollectives> collectives_;          ///< null: not wanted, so far
  std::atomic<const GraphCollectives*> counted_{nullptr};  ///< the same, for device_traffic
  std::uint64_t next_id_ = 0;
  std::uint64_t exchanges_ = 0;                          ///< started
  std::vector<std::unique_ptr<NcclOperation>> pending_;  ///< few, in the order of their starts
  std::vector<std::unique_ptr<NcclOperation>> spare_;
  std::vector<Forwarded> forwarded_;
  bool host_agreement_ = false;
  std::string agreement_reason_;
  std::optional<Error> unreported_;     ///< found while something was started
  std::optional<std::string> failure_;  ///< set: broken, by this
};

}  // namespace lockstep::comm::nccl
