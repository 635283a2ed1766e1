// The expert exchange's messages: header, pairs, rows; and the checks that a receiver makes before it uses any of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "lockstep/comm/expert_exchange.hpp"

namespace lockstep::comm {

/// Values are the header's magic: a message of one direction is never taken for one of the other.
enum class ExchangeDirection : std::int32_t {
  kDispatch = 0x4C445350,  ///< "LDSP": header, pairs, rows
  kGather = 0x4C475448,    ///< "LGTH": header, the experts of every row of the sender, all its rows
  kCombine = 0x4C434D42,   ///< "LCMB": header, one row per pair of the dispatch that it answers, or per row that has pairs (CombineMode)
  // With what a member needs to weigh and sum by itself: the weights (float32) follow the pairs, or the experts.
  kWeightedDispatch = 0x4C575344,  ///< "LWSD"
  kWeightedGather = 0x4C575448,    ///< "LWTH"
  // Of rows that travel by themselves, from device to device.
  kRouting = 0x4C525447,  ///< "LRTG": header, pairs
};

[[nodiscard]] constexpr bool is_gather(ExchangeDirection direction) {
  return direction == ExchangeDirection::kGather || direction == ExchangeDirection::kWeightedGather;
}
/// Lists only the experts of the receiver: how many there are is the sender's to say.
[[nodiscard]] constexpr bool is_routed(ExchangeDirection direction) {
  return direction == ExchangeDirection::kDispatch || direction == ExchangeDirection::kWeightedDispatch || direction == ExchangeDirection::kRouting;
}
[[nodiscard]] constexpr bool is_weighted(ExchangeDirection direction) {
  return direction == ExchangeDirection::kWeightedDispatch || direction == ExchangeDirection::kWeightedGather;
}
[[nodiscard]] std::string_view direction_name(ExchangeDirection direction);

/// 32-bit words in the host's byte order: a peer of another byte order fails at the magic.
struct ExchangeHeader {
  std::int32_t magic = 0;
  std::int32_t sender = 0;
  std::int32_t step_low = 0;
  std::int32_t step_high = 0;
  std::int32_t layer = 0;
  std::int32_t micro_batch = 0;
  std::int32_t rows = 0;
  std::int32_t pairs = 0;
};
static_assert(sizeof(ExchangeHeader) == 32);

/// One expert to compute for one of the message's rows. A message's pairs ascend by (row, expert) and leave out no row.
struct RoutedPair {
  std::int32_t row = 0;  ///< index in the message, not in the sender's batch
  std::int32_t expert = 0;
};
static_assert(sizeof(RoutedPair) == 8);

/// What the receiver knows of a message before it comes.
struct ExpectedMessage {
  ExchangeDirection direction = ExchangeDirection::kDispatch;
  ExchangePosition position{};
  std::int32_t sender = 0;
  std::int32_t receiver = 0;
  std::int32_t rows_max = 0;   ///< of a dispatch: the sender's agreed tokens; of a gather exactly these; of a combine: exactly the rows asked for
  std::int32_t pairs_max = 0;  ///< likewise, of a combine those that its rows are of
  std::size_t row_bytes = 0;
};

[[nodiscard]] std::size_t message_bytes(ExchangeDirection direction, std::int32_t rows, std::int32_t pairs, std::size_t row_bytes);
/// In each direction of what is listed between header and rows, one for each pair.
[[nodiscard]] constexpr std::size_t listed_bytes(ExchangeDirection direction) {
  return direction == ExchangeDirection::kCombine ? 0 : is_gather(direction) ? sizeof(std::int32_t) : sizeof(RoutedPair);
}
[[nodiscard]] constexpr std::size_t weights_offset(ExchangeDirection direction, std::int32_t pairs) {
  return sizeof(ExchangeHeader) + static_cast<std::size_t>(pairs) * listed_bytes(direction);
}
[[nodiscard]] constexpr std::size_t first_row_offset(ExchangeDirection direction, std::int32_t pairs) {
  return weights_offset(direction, pairs) + (is_weighted(direction) ? static_cast<std::size_t>(pairs) * sizeof(float) : 0);
}

void write_header(std::span<std::byte> message, ExchangeDirection direction, const ExchangePosition& position, int sender, std::int32_t rows,
                  std::int32_t pairs);
void write_pair(std::span<std::byte> message, std::int32_t index, RoutedPair pair);
[[nodiscard]] RoutedPair read_pair(std::span<const std::byte> message, std::int32_t index);

/// Of agreed counts.      Errors  kDiverged: a member's micro-batch has more rows than there are buffers for, by the limits of this member.
[[nodiscard]] Status check_token_counts(const DPMetadata& tokens, const ExchangePosition& position, std::int32_t rows_max);

/// Errors  kDiverged naming the field, both members and both values.
[[nodiscard]] Result<ExchangeHeader> read_header(std::span<const std::byte> message, const ExpectedMessage& expected);

/// Checks all pairs of a dispatch whose header was read: order, rows, and that by `placement` the receiver computes each pair's expert for this sender.
[[nodiscard]] Status check_pairs(std::span<const std::byte> message, const ExchangeHeader& header, const ExpectedMessage& expected, const Placement& placement);
/// The same of a gather: every row has `top_k` experts of the placement, ascending.
[[nodiscard]] Status check_experts(std::span<const std::byte> message, const ExchangeHeader& header, const ExpectedMessage& expected, std::int32_t top_k,
                                   const Placement& placement);
/// The experts of a gather, by pair.
void write_experts(std::span<std::byte> message, std::span<const std::int32_t> experts);
/// Of a weighted message of `pairs` pairs.
void write_weight(std::span<std::byte> message, ExchangeDirection direction, std::int32_t pairs, std::int32_t index, float weight);
[[nodiscard]] float read_weight(std::span<const std::byte> message, ExchangeDirection direction, std::int32_t pairs, std::int32_t index);
[[nodiscard]] std::int32_t read_expert(std::span<const std::byte> message, std::int32_t pair);

}  // namespace lockstep::comm
