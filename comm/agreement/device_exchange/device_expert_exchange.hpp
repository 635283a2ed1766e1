// DeviceExpertExchange: the exchange of rows that stay in a device's memory. What ExpertExchange promises of the host's memory holds of the device's here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "comm/agreement/exchange_memory.hpp"
#include "comm/agreement/exchange_message.hpp"
#include "lockstep/comm/device_messages.hpp"
#include "lockstep/comm/expert_exchange.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::comm {

/// Rows are always routed: one that several experts of a member want travels once, and of a few rows no more than their own go anywhere.
/// Streams  packs on its own and lets messages run there; who computes takes what came by `take`, and says by `computed` that outputs are written.
class DeviceExpertExchange final : public ExpertExchange, private DeviceMessageLayout {
 public:
  /// `messages` may be null for a member alone.      Errors  the device's.
  [[nodiscard]] static Result<std::unique_ptr<ExpertExchange>> create(DeviceMessages* messages, Communicator& communicator, const GroupView& view,
                                                                      const Placement& placement, const ExpertExchangeOptions& options);

  [[nodiscard]] Status start_dispatch(const ExchangePosition& position, const DPMetadata& tokens, const RoutedRows& routed) override;
  [[nodiscard]] bool arrived() override;
  [[nodiscard]] Status finish_dispatch(const Deadline& deadline) override;
  void mark_next(const device::StreamMark& begin, const device::StreamMark& end) override {
    begin_mark_ = begin;
    end_mark_ = end;
  }
  void take(device::Stream& stream, const device::StreamMark& taken) override;
  [[nodiscard]] ReceivedRows received() const override {
    return {.rows = {received_.as<BFloat16>(), static_cast<std::size_t>(offsets_.back()) * hidden()}, .offsets = offsets_};
  }
  [[nodiscard]] std::span<BFloat16> outputs() override { return {outputs_.as<BFloat16>(), static_cast<std::size_t>(offsets_.back()) * hidden()}; }
  void computed(device::Stream& stream) override;
  [[nodiscard]] Status start_combine() override;
  [[nodiscard]] Status finish_combine(const Deadline& deadline) override;
  [[nodiscard]] std::span<const BFloat16> combined() const override {
    return {combined_.as<BFloat16>(), static_cast<std::size_t>(tokens_[me_]) * static_cast<std::size_t>(options_.top_k) * hidden()};
  }
  [[nodiscard]] std::uint64_t wire_bytes_total() const override { return wire_bytes_; }
  [[nodiscard]] std::uint64_t crossed_rows_total() const override { return crossed_rows_; }

 private:
  enum class Stage { kIdle, kDispatching, kDispatched, kCombining };
  /// What goes to, and comes from, one member.
  struct Part {
    std::int32_t experts = 0;  ///< that one side computes for the other; fixed
    std::int32_t rows = 0;     ///< of the dispatch
    std::int32_t pairs = 0;    ///< of the dispatch, each answered by a row
    std::int32_t first_row = 0;
    std::int32_t first_pair = 0;
  };

  DeviceExpertExchange(DeviceMessages* messages, Communicator& communicator, const GroupView& view, const Placement& placement,
                       const ExpertExchangeOptions& options);
  [[nodiscard]] Status allocate();
  [[nodiscard]] Status lay_out(std::span<const std::size_t> list_bytes, std::span<DeviceMessage> send, std::span<DeviceMessage> receive) override;
  [[nodiscard]] Status lay_out_dispatch(std::span<const std::size_t> list_bytes, std::span<DeviceMessage> send, std::span<DeviceMessage> receive);
  void lay_out_combine(std::span<DeviceMessage> send, std::span<DeviceMessage> receive);

  void expect_stage(Stage stage, std::string_view call) const;
  [[nodiscard]] Status take_tokens(const DPMetadata& tokens);
  void count_routed(std::span<const std::int32_t> expert_ids);
  void write_lists(std::span<const std::int32_t> expert_ids);
  [[nodiscard]] Status read_list(std::size_t source, std::size_t bytes);
  void group_rows();
  void pack(const BFloat16* from, std::size_t rows);
  [[nodiscard]] Status start_messages(bool with_lists);
  [[nodiscard]] Status finish(const Deadline& deadline, std::string_view what);
  [[nodiscard]] ExpectedMessage expected_from(std::size_t source) const;
  [[nodiscard]] std::size_t hidden() const { return static_cast<std::size_t>(options_.hidden); }
  [[nodiscard]] DeviceMessage message_at(std::size_t row, std::int32_t rows) const {
    return {.data = travelling_.as<std::byte>() + row * row_bytes_, .bytes = static_cast<std::size_t>(rows) * row_bytes_};
  }
  /// Where a row of `part` lies among those that travel: own ones where they were packed, others' where they come.
  [[nodiscard]] std::int32_t place_of(std::size_t member, std::int32_t packed, std::int32_t received) const {
    return member == me_ ? packed : static_cast<std::int32_t>(receive_begin_) + received;
  }

  DeviceMessages* const messages_;
  Communicator& communicator_;
  const Placement placement_;
  const ExpertExchangeOptions options_;
  const std::size_t members_;
  const std::size_t me_;
  const std::size_t row_bytes_;
  std::vector<std::int32_t> destination_of_;  ///< [experts], the member that computes each for us
  std::vector<std::int32_t> local_index_of_;  ///< [experts], -1 when not ours

  Stage stage_ = Stage::kIdle;
  ExchangePosition position_{};
  std::vector<std::int32_t> tokens_;  ///< [members], of this micro-batch
  std::vector<Part> destinations_;    ///< [members]: what we send, and get back
  std::vector<Part> sources_;         ///< [members]: what we compute, and send back
  Ticket ticket_{};
  // Lists, in the host's memory.
  Arena<std::byte> outgoing_;
  Arena<std::byte> incoming_;
  std::vector<std::span<std::byte>> lists_;                ///< [members], by destination
  std::vector<std::span<const std::byte>> lists_to_send_;  ///< the same for the communicator
  std::vector<std::span<std::byte>> lists_to_come_;        ///< [members], by source, at capacity
  std::vector<std::int32_t> last_row_;                     ///< [members], scratch
  std::vector<Part> written_;                              ///< [members], scratch: how far each list is
  Arena<std::int32_t> slots_;                              ///< [our pairs], grouped by destination: row * top_k + k in our batch
  Arena<RoutedPair> pairs_;                                ///< [received pairs], grouped by source
  Arena<std::int32_t> positions_;                          ///< [received pairs], grouped by source: row in `received`
  std::vector<std::int32_t> offsets_;                      ///< [local experts + 1]
  std::vector<std::int32_t> next_of_;                      ///< [local experts], scratch
  // What is gathered from where, for the device.
  std::vector<std::int32_t> pack_index_;  ///< rows in the order in which they are sent
  std::vector<std::int32_t> take_index_;  ///< of those that travel, in the order of `received` or `combined`
  // The device's memory.
  std::size_t receive_begin_ = 0;  ///< rows of `travelling_` before those that come
  device::Buffer travelling_;      ///< [rows, hidden]: packed ones, then those that come
  device::Buffer received_;
  device::Buffer outputs_;
  device::Buffer combined_;
  std::unique_ptr<device::Stream> stream_;         ///< packs; messages run on it
  std::unique_ptr<device::Event> computed_event_;  ///< outputs are written
  std::unique_ptr<device::Event> arrived_event_;   ///< messages are there
  device::StreamMark begin_mark_;                  ///< of the exchange under way, or the next
  device::StreamMark end_mark_;
  std::uint64_t wire_bytes_ = 0;
  std::uint64_t crossed_rows_ = 0;
};

}  // namespace lockstep::comm
