#include "tests/fault/daemon/faulty_communicator.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/agreement/exchange_message.hpp"
#include "lockstep/comm/device_messages.hpp"
#include "lockstep/comm/step_plan.hpp"

namespace lockstep::tests {
namespace {

using comm::StepField;

// The handshake's record, frozen for all versions: member-major, 8 words a member, the second is the protocol's version.
constexpr std::size_t kHandshakeWords = 8;
constexpr std::size_t kHandshakeVersionWord = 1;

// Far beyond what any batch of these tests may have.
constexpr std::int32_t kMoreRows = 100000;
// Below 4 KiB, where MPI copies a message whole into its own memory first. Longer ones Open MPI 4.1.4 fetches straight from the sender's memory, at the
// sender's length: it writes past the receiver's buffer before it reports that the message was too long, and the receiver may abort instead of naming the
// sender.
constexpr std::size_t kMoreBytes = 2048;

std::optional<StepField> field_of(Fault fault) {
  switch (fault) {
    case Fault::kOtherStep:
      return StepField::kStepLow;
    case Fault::kOtherStepHigh:
      return StepField::kStepHigh;
    case Fault::kOtherEpoch:
      return StepField::kEpoch;
    case Fault::kOtherConfigHash:
      return StepField::kConfigHashLow;
    case Fault::kOtherTokens:
      return StepField::kTokens;
    default:
      return std::nullopt;
  }
}

bool is_dispatch(std::span<const std::byte> message) {
  comm::ExchangeHeader header;
  if (message.size() < sizeof(header)) {
    return false;
  }
  std::memcpy(&header, message.data(), sizeof(header));
  // Whatever says which rows go where: also where rows travel by themselves, from device to device.
  const auto direction = static_cast<comm::ExchangeDirection>(header.magic);
  return comm::is_routed(direction) || comm::is_gather(direction);
}

/// Where the inner one has messages between devices, their lists are told through here as well.
class FaultyCommunicator final : public comm::Communicator, private comm::DeviceMessages {
 public:
  FaultyCommunicator(std::unique_ptr<comm::Communicator> inner, Fault fault, Gate gate) : inner_(std::move(inner)), fault_(fault), gate_(std::move(gate)) {}

  ~FaultyCommunicator() override {
    if (fault_ == Fault::kHoldBeforeFinalize) {
      gate_.hold();
    }
  }
  FaultyCommunicator(const FaultyCommunicator&) = delete;
  FaultyCommunicator& operator=(const FaultyCommunicator&) = delete;

  [[nodiscard]] int rank() const override { return inner_->rank(); }
  [[nodiscard]] int size() const override { return inner_->size(); }
  [[nodiscard]] std::string_view transport() const override { return inner_->transport(); }
  // All ranks have to take the same way for their rows: what the inner one can do, this one can.
  [[nodiscard]] std::string_view agreement_transport() const override { return inner_->agreement_transport(); }
  [[nodiscard]] std::string agreement_reason() const override { return inner_->agreement_reason(); }
  [[nodiscard]] comm::DeviceMessages* device_messages() override { return inner_->device_messages() == nullptr ? nullptr : this; }
  [[nodiscard]] comm::DeviceTraffic device_traffic() const override { return inner_->device_traffic(); }
  [[nodiscard]] Result<bool> test(comm::Ticket ticket) override { return inner_->test(ticket); }
  [[nodiscard]] Status wait(comm::Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) override {
    return inner_->wait(ticket, result, deadline);
  }
  [[nodiscard]] Status wait_all_to_all(comm::Ticket ticket, std::span<std::size_t> received, const Deadline& deadline) override {
    return inner_->wait_all_to_all(ticket, received, deadline);
  }

  [[nodiscard]] Result<comm::Ticket> start_all_reduce(std::span<const std::int32_t> values, comm::ReduceOp op) override {
    std::vector<std::int32_t> words(values.begin(), values.end());
    const auto members = static_cast<std::size_t>(size());
    const auto me = static_cast<std::size_t>(rank());
    if (fault_ == Fault::kOtherProtocolVersion && words.size() == kHandshakeWords * members) {
      words[me * kHandshakeWords + kHandshakeVersionWord] += 1;
    }
    if (words.size() == comm::kStepFieldCount * members) {
      if (const auto field = field_of(fault_); field && gate_.armed()) {
        words[static_cast<std::size_t>(*field) * members + me] += 1;
      } else if (fault_ == Fault::kHoldInAgreement && gate_.armed()) {
        hold();
      }
    }
    return inner_->start_all_reduce(words, op);
  }

  [[nodiscard]] Result<comm::Ticket> start_all_to_all(const comm::AllToAll& exchange) override { return inner_->start_all_to_all(disturbed(exchange)); }

 private:
  [[nodiscard]] Result<comm::Ticket> start_device_all_to_all(const comm::DeviceAllToAll& exchange) override {
    comm::DeviceAllToAll sent = exchange;
    sent.lists = disturbed(exchange.lists);
    return inner_->device_messages()->start_device_all_to_all(sent);
  }
  [[nodiscard]] Status wait_until_enqueued(comm::Ticket ticket, const Deadline& deadline) override {
    return inner_->device_messages()->wait_until_enqueued(ticket, deadline);
  }
  [[nodiscard]] Status check() override { return inner_->device_messages()->check(); }
  [[nodiscard]] Result<comm::DeviceCollectives*> open_collectives(const Deadline& deadline) override {
    return inner_->device_messages()->open_collectives(deadline);
  }

  /// What is sent instead, when the fault is one of exchanges and its time has come; this object's memory until the next call.
  [[nodiscard]] comm::AllToAll disturbed(const comm::AllToAll& exchange) {
    const bool concerned = fault_ == Fault::kHoldInDispatch || fault_ == Fault::kMoreRows || fault_ == Fault::kLongerMessage;
    if (!concerned || std::ranges::none_of(exchange.send, is_dispatch) || !gate_.armed()) {
      return exchange;
    }
    if (fault_ == Fault::kHoldInDispatch) {
      hold();
      return exchange;
    }
    messages_.clear();
    for (std::size_t peer = 0; peer < exchange.send.size(); ++peer) {
      messages_.emplace_back(exchange.send[peer].begin(), exchange.send[peer].end());
      // What a rank sends to itself never travels.
      if (static_cast<int>(peer) != rank() && is_dispatch(exchange.send[peer])) {
        falsify(messages_.back());
      }
    }
    sends_.assign(messages_.begin(), messages_.end());
    return {.send = sends_, .receive = exchange.receive};
  }

  /// Once: who is released goes on for good.
  void hold() {
    gate_.hold();
    fault_ = Fault::kNone;
  }

  void falsify(std::vector<std::byte>& message) const {
    if (fault_ == Fault::kLongerMessage) {
      message.resize(message.size() + kMoreBytes);
      return;
    }
    comm::ExchangeHeader header;
    std::memcpy(&header, message.data(), sizeof(header));
    header.rows += kMoreRows;
    std::memcpy(message.data(), &header, sizeof(header));
  }

  std::unique_ptr<comm::Communicator> inner_;
  Fault fault_;
  Gate gate_;
  std::vector<std::vector<std::byte>> messages_;   ///< borrowed by the inner communicator until the exchange has been waited for
  std::vector<std::span<const std::byte>> sends_;  ///< likewise: of exchanges between devices the spans, too
};

}  // namespace

std::unique_ptr<comm::Communicator> make_faulty_communicator(std::unique_ptr<comm::Communicator> inner, Fault fault, Gate gate) {
  return std::make_unique<FaultyCommunicator>(std::move(inner), fault, std::move(gate));
}

}  // namespace lockstep::tests
