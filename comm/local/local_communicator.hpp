// LocalCommunicator: one rank's view of a LocalGroup.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "comm/local/local_state.hpp"

namespace lockstep::comm {

/// As Communicator says. Stricter than other backends, so that tests find what would hang or be truncated there: `wait` returns only when all ranks have
/// started the operation, and a send to a peer that does not receive, or a receive from one that does not send, is kDiverged.
class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<LocalGroup::State> state, int rank) : state_(std::move(state)), rank_(rank) {}

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return state_->size; }
  [[nodiscard]] Result<Ticket> start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) override;
  [[nodiscard]] Result<Ticket> start_all_to_all(const AllToAll& exchange) override;
  [[nodiscard]] Result<bool> test(Ticket ticket) override;
  [[nodiscard]] Status wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) override;
  [[nodiscard]] Status wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) override;
  [[nodiscard]] std::string_view transport() const override { return "local"; }

 private:
  /// Whether a call of this name may go ahead: the object is not broken, and the hooks agree.
  [[nodiscard]] Status begin(std::string_view call);
  [[nodiscard]] Status begin_start(std::string_view call);
  [[nodiscard]] Ticket publish(Operation& operation);
  [[nodiscard]] Operation& pending(Ticket ticket, OperationKind kind) const;
  [[nodiscard]] Status check_sizes(const Operation& operation) const;
  void finish(Operation& operation);
  [[nodiscard]] Status fail(Status status);

  std::shared_ptr<LocalGroup::State> state_;  ///< shared by all communicators of the group and its LocalGroup
  const int rank_;
  std::uint64_t next_sequence_ = 0;
  std::vector<Operation*> pending_;     ///< started, not yet waited for; few
  std::optional<std::string> failure_;  ///< set: broken, by this
};

}  // namespace lockstep::comm
