#include "comm/agreement/exchange_message.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace lockstep::comm {

namespace {

Error diverged(const ExpectedMessage& expected, std::string_view difference) {
  return {ErrorCode::kDiverged,
          fmt::format(
              "{} from member {} to member {} at step {}, layer {}, micro-batch {}: {}; the two disagree about the step: see the logs of both, then restart "
              "the group",
              direction_name(expected.direction), expected.sender, expected.receiver, expected.position.step, expected.position.layer,
              expected.position.micro_batch, difference),
          expected.sender};
}

std::int64_t step_of(const ExchangeHeader& header) {
  return static_cast<std::int64_t>(std::uint64_t{static_cast<std::uint32_t>(header.step_high)} << 32U | static_cast<std::uint32_t>(header.step_low));
}

Status check_equal(const ExpectedMessage& expected, std::string_view field, std::int64_t theirs, std::int64_t ours) {
  if (theirs == ours) {
    return {};
  }
  return diverged(expected, fmt::format("{} is {}, ours is {}", field, theirs, ours));
}

Status check_counts(const ExchangeHeader& header, const ExpectedMessage& expected) {
  if (!is_routed(expected.direction)) {
    LOCKSTEP_RETURN_IF_ERROR(check_equal(expected, "pairs", header.pairs, expected.pairs_max));
    return check_equal(expected, "rows", header.rows, expected.rows_max);
  }
  if (header.rows < 0 || header.rows > expected.rows_max) {
    return diverged(expected, fmt::format("rows is {}, agreed are 0 to {}", header.rows, expected.rows_max));
  }
  if (header.pairs < 0 || header.pairs > expected.pairs_max) {
    return diverged(expected, fmt::format("pairs is {}, agreed are 0 to {}", header.pairs, expected.pairs_max));
  }
  return {};
}

}  // namespace

std::string_view direction_name(ExchangeDirection direction) {
  return direction == ExchangeDirection::kCombine ? "combine" : "dispatch";
}

std::size_t message_bytes(ExchangeDirection direction, std::int32_t rows, std::int32_t pairs, std::size_t row_bytes) {
  return first_row_offset(direction, pairs) + static_cast<std::size_t>(rows) * row_bytes;
}

void write_header(std::span<std::byte> message, ExchangeDirection direction, const ExchangePosition& position, int sender, std::int32_t rows,
                  std::int32_t pairs) {
  const auto step = static_cast<std::uint64_t>(position.step);
  const ExchangeHeader header{.magic = static_cast<std::int32_t>(direction),
                              .sender = sender,
                              .step_low = static_cast<std::int32_t>(static_cast<std::uint32_t>(step)),
                              .step_high = static_cast<std::int32_t>(static_cast<std::uint32_t>(step >> 32U)),
                              .layer = position.layer,
                              .micro_batch = position.micro_batch,
                              .rows = rows,
                              .pairs = pairs};
  std::memcpy(message.data(), &header, sizeof(header));
}

void write_pair(std::span<std::byte> message, std::int32_t index, RoutedPair pair) {
  const std::size_t offset = sizeof(ExchangeHeader) + static_cast<std::size_t>(index) * sizeof(RoutedPair);
  std::memcpy(message.subspan(offset, sizeof(pair)).data(), &pair, sizeof(pair));
}

RoutedPair read_pair(std::span<const std::byte> message, std::int32_t index) {
  const std::size_t offset = sizeof(ExchangeHeader) + static_cast<std::size_t>(index) * sizeof(RoutedPair);
  RoutedPair pair;
  std::memcpy(&pair, message.subspan(offset, sizeof(pair)).data(), sizeof(pair));
  return pair;
}

Status check_token_counts(const DPMetadata& tokens, const ExchangePosition& position, std::int32_t rows_max) {
  const auto counts = tokens.tokens_per_rank();
  const auto found = std::ranges::find_if(counts, [rows_max](std::int32_t count) { return count < 0 || count > rows_max; });
  if (found == counts.end()) {
    return {};
  }
  const auto member = static_cast<int>(found - counts.begin());
  return Error{
      ErrorCode::kDiverged,
      fmt::format("step {}, layer {}, micro-batch {}: member {} has {} rows, member {}'s buffers are for 0 to {}: the members' limits on tokens differ; "
                  "restart the group with equal options",
                  position.step, position.layer, position.micro_batch, member, *found, tokens.rank(), rows_max),
      member};
}

Result<ExchangeHeader> read_header(std::span<const std::byte> message, const ExpectedMessage& expected) {
  if (message.size() < sizeof(ExchangeHeader)) {
    return diverged(expected, fmt::format("the message has {} bytes, its header alone {}", message.size(), sizeof(ExchangeHeader)));
  }
  ExchangeHeader header;
  std::memcpy(&header, message.data(), sizeof(header));
  if (header.magic != static_cast<std::int32_t>(expected.direction)) {
    return diverged(
        expected, fmt::format("magic is 0x{:08x}, ours is 0x{:08x}", static_cast<std::uint32_t>(header.magic), static_cast<std::uint32_t>(expected.direction)));
  }
  LOCKSTEP_RETURN_IF_ERROR(check_equal(expected, "sender", header.sender, expected.sender));
  LOCKSTEP_RETURN_IF_ERROR(check_equal(expected, "step", step_of(header), expected.position.step));
  LOCKSTEP_RETURN_IF_ERROR(check_equal(expected, "layer", header.layer, expected.position.layer));
  LOCKSTEP_RETURN_IF_ERROR(check_equal(expected, "micro_batch", header.micro_batch, expected.position.micro_batch));
  LOCKSTEP_RETURN_IF_ERROR(check_counts(header, expected));
  // Counts are within the agreed ones now, so the size cannot overflow; that all of it came is what makes reading the pairs and rows safe.
  if (const std::size_t needed = message_bytes(expected.direction, header.rows, header.pairs, expected.row_bytes); message.size() != needed) {
    return diverged(expected, fmt::format("the message has {} bytes, its {} rows and {} pairs are {} here", message.size(), header.rows, header.pairs, needed));
  }
  return header;
}

Status check_pairs(std::span<const std::byte> message, const ExchangeHeader& header, const ExpectedMessage& expected, const Placement& placement) {
  // The first pair must open row 0: beside this expert no other can be of the "same" row -1, whose values lie before the message's rows.
  RoutedPair previous{-1, std::numeric_limits<std::int32_t>::max()};
  for (std::int32_t i = 0; i < header.pairs; ++i) {
    const RoutedPair pair = read_pair(message, i);
    if (pair.expert < 0 || pair.expert >= placement.expert_count() || placement.serving_member(pair.expert, expected.sender) != expected.receiver) {
      return diverged(expected, fmt::format("pair {} is for expert {}, which member {} does not compute for member {} by our placement", i, pair.expert,
                                            expected.receiver, expected.sender));
    }
    const bool same_row = pair.row == previous.row && pair.expert > previous.expert;
    const bool next_row = pair.row == previous.row + 1 && pair.row < header.rows;  // from our side: the peer's row may be the least int32
    if (!same_row && !next_row) {
      return diverged(expected, fmt::format("pair {} is (row {}, expert {}) after (row {}, expert {}), expected ascending pairs without a gap over {} rows", i,
                                            pair.row, pair.expert, previous.row, previous.expert, header.rows));
    }
    previous = pair;
  }
  return check_equal(expected, "rows", header.rows, previous.row + 1);
}

void write_experts(std::span<std::byte> message, std::span<const std::int32_t> experts) {
  if (!experts.empty()) {
    std::memcpy(message.subspan(sizeof(ExchangeHeader), experts.size_bytes()).data(), experts.data(), experts.size_bytes());
  }
}

void write_weight(std::span<std::byte> message, ExchangeDirection direction, std::int32_t pairs, std::int32_t index, float weight) {
  std::memcpy(message.subspan(weights_offset(direction, pairs) + static_cast<std::size_t>(index) * sizeof(weight), sizeof(weight)).data(), &weight,
              sizeof(weight));
}

float read_weight(std::span<const std::byte> message, ExchangeDirection direction, std::int32_t pairs, std::int32_t index) {
  float weight = 0;
  std::memcpy(&weight, message.subspan(weights_offset(direction, pairs) + static_cast<std::size_t>(index) * sizeof(weight), sizeof(weight)).data(),
              sizeof(weight));
  return weight;
}

std::int32_t read_expert(std::span<const std::byte> message, std::int32_t pair) {
  const std::size_t offset = sizeof(ExchangeHeader) + static_cast<std::size_t>(pair) * sizeof(std::int32_t);
  std::int32_t expert = 0;
  std::memcpy(&expert, message.subspan(offset, sizeof(expert)).data(), sizeof(expert));
  return expert;
}

Status check_experts(std::span<const std::byte> message, const ExchangeHeader& header, const ExpectedMessage& expected, std::int32_t top_k,
                     const Placement& placement) {
  for (std::int32_t pair = 0; pair < header.pairs; ++pair) {
    const std::int32_t expert = read_expert(message, pair);
    const std::int32_t before = pair % top_k == 0 ? -1 : read_expert(message, pair - 1);
    if (expert <= before || expert >= placement.expert_count()) {
      return diverged(expected,
                      fmt::format("row {} has expert {} after {}, expected ascending ones of {}", pair / top_k, expert, before, placement.expert_count()));
    }
  }
  return {};
}

}  // namespace lockstep::comm
