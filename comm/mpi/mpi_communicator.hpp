// MpiCommunicator: the ranks of one mpirun or srun job, over host memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/mpi/mpi_operation.hpp"
#include "comm/mpi/mpi_runtime.hpp"

namespace lockstep::comm {

class MpiCommunicator final : public Communicator {
 public:
  /// `shares_cores`: more ranks on this host than cores they may use.
  MpiCommunicator(std::unique_ptr<MpiRuntime> runtime, bool shares_cores);
  ~MpiCommunicator() override;

  [[nodiscard]] int rank() const override { return runtime_->rank(); }
  [[nodiscard]] int size() const override { return runtime_->size(); }
  [[nodiscard]] Result<Ticket> start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) override;
  [[nodiscard]] Result<Ticket> start_all_to_all(const AllToAll& exchange) override;
  [[nodiscard]] Result<bool> test(Ticket ticket) override;
  [[nodiscard]] Status wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) override;
  [[nodiscard]] Status wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) override;
  [[nodiscard]] std::string_view transport() const override { return "mpi"; }

 private:
  [[nodiscard]] Status check_usable(std::string_view call) const;
  [[nodiscard]] Status check_startable(std::string_view call) const;
  /// An operation without history, or one that was given back.
  [[nodiscard]] std::unique_ptr<MpiOperation> take_spare();
  [[nodiscard]] Result<Ticket> add_pending(std::unique_ptr<MpiOperation> operation, Status started);
  [[nodiscard]] MpiOperation& pending(Ticket ticket) const;
  [[nodiscard]] Status complete(MpiOperation& operation, const Deadline& deadline);
  void give_back(const MpiOperation& operation);
  [[nodiscard]] Status fail(Status status);

  /// One call, from its beginning to its end. MPI is started for one thread at a time, and a second one would corrupt messages: it ends the process instead.
  class Entered {
   public:
    explicit Entered(MpiCommunicator& communicator);
    ~Entered() { inside_.store(false, std::memory_order_release); }  // whoever comes next, on whichever thread, sees what this call left
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;

   private:
    std::atomic<bool>& inside_;
  };

  std::atomic<bool> inside_{false};
  std::unique_ptr<MpiRuntime> runtime_;
  const int spin_polls_;
  std::uint64_t next_id_ = 0;
  std::vector<std::unique_ptr<MpiOperation>> pending_;  ///< few
  std::vector<std::unique_ptr<MpiOperation>> spare_;
  std::optional<std::string> failure_;  ///< set: broken, by this
};

}  // namespace lockstep::comm
