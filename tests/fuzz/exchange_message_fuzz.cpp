// Goal: no message of the expert exchange is used before every number in it was checked.
// Method: the first bytes choose what the receiver expects, the rest is the message; of an accepted one all rows and pairs are read.
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/agreement/exchange_message.hpp"
#include "lockstep/core/check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lockstep;
  using namespace lockstep::comm;
  constexpr std::size_t kChoices = 4;
  if (size < kChoices) {
    return 0;
  }
  const GroupView view = GroupView::initial(3, data[1] % 3);
  const Placement placement = Placement::contiguous(8, view);
  constexpr std::array kDirections{ExchangeDirection::kDispatch, ExchangeDirection::kCombine, ExchangeDirection::kGather, ExchangeDirection::kRouting};
  constexpr std::int32_t kTopK = 2;
  const ExchangeDirection direction = kDirections[data[0] % kDirections.size()];
  const ExpectedMessage expected{.direction = direction,
                                 .position = {},
                                 .sender = (view.my_index + 1) % 3,
                                 .receiver = view.my_index,
                                 .rows_max = data[2] % 32,
                                 .pairs_max = data[2] % 32 * 2,
                                 .row_bytes = direction == ExchangeDirection::kRouting ? 0 : static_cast<std::size_t>(2 * (1 + data[3] % 8))};
  // A copy of its own length: a read past the end shows.
  const auto rest = std::as_bytes(std::span(data + kChoices, size - kChoices));
  const std::vector<std::byte> message(rest.begin(), rest.end());
  const Result<ExchangeHeader> header = read_header(message, expected);
  if (!header) {
    LOCKSTEP_CHECK(header.error().code == ErrorCode::kDiverged, "{}", header.error().message);
    return 0;
  }
  if (is_routed(expected.direction) && !check_pairs(message, *header, expected, placement)) {
    return 0;
  }
  if (expected.direction == ExchangeDirection::kGather && !check_experts(message, *header, expected, kTopK, placement)) {
    return 0;
  }
  const auto rows = static_cast<std::size_t>(header->rows);
  const auto bytes = std::span(message).subspan(first_row_offset(expected.direction, header->pairs), rows * expected.row_bytes);
  std::uint32_t sum = 0;
  for (const std::byte value : bytes) {
    sum += static_cast<std::uint32_t>(value);
  }
  if (is_routed(expected.direction)) {
    for (std::int32_t i = 0; i < header->pairs; ++i) {
      const RoutedPair pair = read_pair(message, i);
      LOCKSTEP_CHECK(pair.row >= 0 && pair.row < header->rows && placement.local_index(pair.expert, view.my_index) >= 0, "row {}, expert {}", pair.row,
                     pair.expert);
    }
  }
  if (expected.direction == ExchangeDirection::kGather) {
    for (std::int32_t i = 0; i < header->pairs; ++i) {
      LOCKSTEP_CHECK(read_expert(message, i) >= 0 && read_expert(message, i) < placement.expert_count(), "expert {}", read_expert(message, i));
    }
  }
  LOCKSTEP_CHECK(sum <= 255 * bytes.size(), "sum");
  return 0;
}
