// A communicator whose own allocations are left out of a count.
#pragma once

#include "lockstep/comm/communicator.hpp"
#include "tests/unit/agreement/exchange/allocation_count.hpp"

namespace lockstep::comm::testing {

class UncountedCommunicator final : public Communicator {
  template <typename Call>
  auto uncounted(const Call& call) {
    const std::uint64_t before = allocations_of_this_thread();
    auto result = call();
    inside_ += allocations_of_this_thread() - before;
    return result;
  }

 public:
  explicit UncountedCommunicator(Communicator& inner) : inner_(inner) {}
  [[nodiscard]] std::uint64_t allocations() const { return inside_; }
  [[nodiscard]] int rank() const override { return inner_.rank(); }
  [[nodiscard]] int size() const override { return inner_.size(); }
  [[nodiscard]] Result<Ticket> start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) override {
    return uncounted([&] { return inner_.start_all_reduce(values, op); });
  }
  [[nodiscard]] Result<Ticket> start_all_to_all(const AllToAll& exchange) override {
    return uncounted([&] { return inner_.start_all_to_all(exchange); });
  }
  [[nodiscard]] Result<bool> test(Ticket ticket) override {
    return uncounted([&] { return inner_.test(ticket); });
  }
  [[nodiscard]] Status wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) override {
    return uncounted([&] { return inner_.wait(ticket, result, deadline); });
  }
  [[nodiscard]] Status wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) override {
    return uncounted([&] { return inner_.wait_all_to_all(ticket, received_bytes, deadline); });
  }
  [[nodiscard]] std::string_view transport() const override { return inner_.transport(); }

 private:
  Communicator& inner_;
  std::uint64_t inside_ = 0;
};

}  // namespace lockstep::comm::testing
