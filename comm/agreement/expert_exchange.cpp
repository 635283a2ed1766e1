#include "lockstep/comm/expert_exchange.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "comm/agreement/device_exchange/device_expert_exchange.hpp"
#include "comm/agreement/exchange_memory.hpp"
#include "comm/agreement/exchange_message.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::comm {

namespace {

/// The exchange over host memory.
class HostExpertExchange final : public ExpertExchange {
 public:
  HostExpertExchange(Communicator& communicator, const GroupView& view, const Placement& placement, const ExpertExchangeOptions& options);
  /// Everything for the largest micro-batch and the worst routing: nothing is allocated after this.
  [[nodiscard]] Status allocate();

  [[nodiscard]] Status start_dispatch(const ExchangePosition& position, const DPMetadata& tokens, const RoutedRows& routed) override;
  [[nodiscard]] bool arrived() override;
  [[nodiscard]] Status finish_dispatch(const Deadline& deadline) override;
  [[nodiscard]] ReceivedRows received() const override {
    return {.rows = received_.span(0, static_cast<std::size_t>(offsets_.back()) * hidden()), .offsets = offsets_};
  }
  [[nodiscard]] std::span<BFloat16> outputs() override { return outputs_.span(0, static_cast<std::size_t>(offsets_.back()) * hidden()); }
  [[nodiscard]] Status start_combine() override;
  [[nodiscard]] Status finish_combine(const Deadline& deadline) override;
  [[nodiscard]] std::span<const BFloat16> combined() const override;
  [[nodiscard]] std::uint64_t wire_bytes_total() const override { return wire_bytes_; }
  [[nodiscard]] std::uint64_t crossed_rows_total() const override { return crossed_rows_; }

 private:
  enum class Stage { kIdle, kDispatching, kDispatched, kCombining };

  void expect_stage(Stage stage, std::string_view call) const;
  [[nodiscard]] std::int32_t pairs_capacity(const Peer& peer, std::int32_t tokens) const { return tokens * std::min(options_.top_k, peer.experts); }
  [[nodiscard]] bool talks_to(std::size_t destination) const { return my_tokens() > 0 && destinations_[destination].experts > 0; }
  [[nodiscard]] bool hears_from(std::size_t source) const { return tokens_[source] > 0 && sources_[source].experts > 0; }
  [[nodiscard]] std::int32_t my_tokens() const { return tokens_[me_]; }
  [[nodiscard]] std::size_t hidden() const { return static_cast<std::size_t>(options_.hidden); }
  [[nodiscard]] Status take_tokens(const DPMetadata& tokens);
  void count_pairs(std::span<const std::int32_t> expert_ids);
  void pack_dispatch(const RoutedRows& routed);
  void pack_gather(const RoutedRows& routed);
  [[nodiscard]] bool sums() const { return options_.combine == CombineMode::kPerRank; }
  [[nodiscard]] ExchangeDirection routed_direction() const { return sums() ? ExchangeDirection::kWeightedDispatch : ExchangeDirection::kDispatch; }
  [[nodiscard]] ExchangeDirection gather_direction() const { return sums() ? ExchangeDirection::kWeightedGather : ExchangeDirection::kGather; }
  [[nodiscard]] ExchangeDirection outward() const { return gathers_ ? gather_direction() : routed_direction(); }
  /// Whether a member's answer is awaited. A routed dispatch is answered always; of a gathered one both ends know when there is nothing to answer.
  [[nodiscard]] bool is_answered(const Peer& peer) const { return !gathers_ || peer.pairs > 0; }
  void take_pairs(std::size_t source, const ExchangeHeader& header);
  [[nodiscard]] Status start_exchange();
  [[nodiscard]] Status wait_exchange(ExchangeDirection direction, const Deadline& deadline);
  [[nodiscard]] ExpectedMessage expected_from(std::size_t peer, ExchangeDirection direction) const;
  [[nodiscard]] Status check_dispatch(std::size_t source);
  void group_received_rows();
  void pack_outputs(const Peer& source, std::span<std::byte> rows);
  void pack_sums(const Peer& source, std::span<std::byte> rows);
  void take_outputs(const Peer& destination, std::span<const std::byte> rows);
  void take_sums(const Peer& destination, std::span<const std::byte> rows);
  [[nodiscard]] std::span<const std::byte> message_from(std::size_t source) const { return receives_[source].first(received_bytes_[source]); }
  [[nodiscard]] BFloat16* row_at(const Arena<BFloat16>& arena, std::int32_t row) const {
    return arena.span(static_cast<std::size_t>(row) * hidden(), hidden()).data();
  }

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
  bool gathers_ = false;              ///< this micro-batch is gathered, not routed
  std::vector<Peer> destinations_;    ///< [members]: what we send, and get back
  std::vector<Peer> sources_;         ///< [members]: what we compute, and send back
  // Of one all-to-all; dispatch and combine of one object never overlap, so they share the memory.
  Arena<std::byte> outgoing_;
  Arena<std::byte> incoming_;
  std::vector<std::span<std::byte>> send_messages_;  ///< [members]
  std::vector<std::span<const std::byte>> sends_;    ///< [members], the same for the communicator
  std::vector<std::span<std::byte>> receives_;       ///< [members]
  std::vector<std::size_t> received_bytes_;          ///< [members]
  Ticket ticket_{};
  // Routing of this exchange.
  Arena<std::int32_t> slots_;           ///< [our pairs], grouped by destination: row * top_k + k in our batch
  std::vector<std::int32_t> last_row_;  ///< [members], the last of our rows that was counted for a destination
  Arena<RoutedPair> received_pairs_;    ///< [received pairs], grouped by source: what is ours of what came
  Arena<std::int32_t> positions_;       ///< [received pairs], grouped by source: row in `received`
  // For CombineMode::kPerRank, else empty.
  Arena<float> received_weights_;          ///< [received pairs]
  std::vector<float> sum_;                 ///< [hidden], scratch
  std::vector<BFloat16> rounded_sum_;      ///< [hidden], scratch
  std::vector<std::int32_t> sums_of_row_;  ///< [rows], sums that have come for each of ours
  std::size_t sums_per_row_ = 0;           ///< at most so many
  std::vector<std::int32_t> offsets_;      ///< [local experts + 1]
  std::vector<std::int32_t> next_of_;      ///< [local experts], where the next received row goes
  Arena<BFloat16> received_;
  Arena<BFloat16> outputs_;
  Arena<BFloat16> combined_;
  std::uint64_t wire_bytes_ = 0;
  std::uint64_t crossed_rows_ = 0;
};

HostExpertExchange::HostExpertExchange(Communicator& communicator, const GroupView& view, const Placement& placement, const ExpertExchangeOptions& options)
    : communicator_(communicator),
      placement_(placement),
      options_(options),
      members_(view.members.size()),
      me_(static_cast<std::size_t>(view.my_index)),
      row_bytes_(static_cast<std::size_t>(options.hidden) * sizeof(BFloat16)),
      tokens_(members_),
      destinations_(members_),
      sources_(members_),
      send_messages_(members_),
      sends_(members_),
      receives_(members_),
      received_bytes_(members_),
      last_row_(members_) {
  const int experts = placement.expert_count();
  for (int expert = 0; expert < experts; ++expert) {
    destination_of_.push_back(placement.serving_member(expert, view.my_index));
    local_index_of_.push_back(placement.local_index(expert, view.my_index));
    ++destinations_[static_cast<std::size_t>(destination_of_.back())].experts;
    for (std::size_t source = 0; source < members_; ++source) {
      sources_[source].experts += placement.serving_member(expert, static_cast<int>(source)) == view.my_index ? 1 : 0;
    }
  }
  const std::size_t local_experts = placement.experts_of(view.my_index).size();
  offsets_.assign(local_experts + 1, 0);
  next_of_.assign(local_experts, 0);
}

Status HostExpertExchange::allocate() {
  const auto rows_max = static_cast<std::size_t>(options_.rows_max);
  const std::size_t pairs_out_max = rows_max * static_cast<std::size_t>(options_.top_k);
  std::size_t pairs_in_max = 0;
  std::size_t dispatch_in = 0;
  std::size_t destination_count = 0;
  for (std::size_t peer = 0; peer < members_; ++peer) {
    const std::int32_t pairs = pairs_capacity(sources_[peer], options_.rows_max);
    pairs_in_max += static_cast<std::size_t>(pairs);
    dispatch_in += aligned(std::max(message_bytes(routed_direction(), options_.rows_max, pairs, row_bytes_),
                                    message_bytes(gather_direction(), options_.rows_max, options_.rows_max * options_.top_k, row_bytes_)));
    destination_count += destinations_[peer].experts > 0 ? 1 : 0;
  }
  // A row goes to at most top_k destinations, once to each.
  sums_per_row_ = std::min(static_cast<std::size_t>(options_.top_k), destination_count);
  const std::size_t rows_out_max = rows_max * sums_per_row_;
  const std::size_t headers = members_ * (aligned(sizeof(ExchangeHeader)) + kAlignment);
  outgoing_ = Arena<std::byte>(headers + std::max(rows_out_max * row_bytes_ + pairs_out_max * (sizeof(RoutedPair) + sizeof(float)), pairs_in_max * row_bytes_));
  incoming_ = Arena<std::byte>(std::max(dispatch_in, headers + pairs_out_max * row_bytes_));
  slots_ = Arena<std::int32_t>(pairs_out_max);
  received_pairs_ = Arena<RoutedPair>(pairs_in_max);
  positions_ = Arena<std::int32_t>(pairs_in_max);
  LOCKSTEP_ASSIGN_OR_RETURN(received_, allocate_values(options_.device, pairs_in_max * hidden()));
  LOCKSTEP_ASSIGN_OR_RETURN(outputs_, allocate_values(options_.device, pairs_in_max * hidden()));
  LOCKSTEP_ASSIGN_OR_RETURN(combined_, allocate_values(options_.device, pairs_out_max * hidden()));
  if (sums()) {
    received_weights_ = Arena<float>(pairs_in_max);
    sum_.resize(hidden());
    rounded_sum_.resize(hidden());
    sums_of_row_.resize(rows_max);
  }
  return {};
}

void HostExpertExchange::expect_stage(Stage stage, std::string_view call) const {
  LOCKSTEP_CHECK(stage_ == stage, "member {}: {} at stage {}, expected stage {}: dispatch and combine must be started and finished in turn", me_, call,
                 static_cast<int>(stage_), static_cast<int>(stage));
}

Status HostExpertExchange::take_tokens(const DPMetadata& tokens) {
  LOCKSTEP_CHECK(static_cast<std::size_t>(tokens.world_size()) == members_, "token counts of {} members in a group of {}", tokens.world_size(), members_);
  LOCKSTEP_CHECK(static_cast<std::size_t>(tokens.rank()) == me_, "token counts of member {} at member {}", tokens.rank(), me_);
  LOCKSTEP_RETURN_IF_ERROR(check_token_counts(tokens, position_, options_.rows_max));
  const auto counts = tokens.tokens_per_rank();
  std::ranges::copy(counts, tokens_.begin());
  gathers_ = std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) <= options_.gather_rows;
  return {};
}

/// Counts what goes where, and lays the messages out.
void HostExpertExchange::count_pairs(std::span<const std::int32_t> expert_ids) {
  for (std::size_t peer = 0; peer < members_; ++peer) {
    destinations_[peer].rows = 0;
    destinations_[peer].pairs = 0;
    last_row_[peer] = -1;
  }
  const std::int32_t top_k = options_.top_k;
  for (std::int32_t slot = 0; slot < my_tokens() * top_k; ++slot) {
    const std::int32_t expert = expert_ids[static_cast<std::size_t>(slot)];
    LOCKSTEP_CHECK(expert >= 0 && expert < placement_.expert_count(), "row {}: expert {} of {}", slot / top_k, expert, placement_.expert_count());
    LOCKSTEP_CHECK(slot % top_k == 0 || expert_ids[static_cast<std::size_t>(slot - 1)] < expert, "row {}: expert {} after {}, expected ascending ones",
                   slot / top_k, expert, expert_ids[static_cast<std::size_t>(slot - 1)]);
    const auto destination = static_cast<std::size_t>(destination_of_[static_cast<std::size_t>(expert)]);
    ++destinations_[destination].pairs;
    destinations_[destination].rows += std::exchange(last_row_[destination], slot / top_k) != slot / top_k ? 1 : 0;
  }
  std::size_t offset = 0;
  std::int32_t pairs_begin = 0;
  for (std::size_t peer = 0; peer < members_; ++peer) {
    Peer& destination = destinations_[peer];
    destination.pairs_begin = std::exchange(pairs_begin, pairs_begin + destination.pairs);
    destination.answers = sums() ? destination.rows : destination.pairs;
    if (gathers_) {
      destination.rows = destination.experts > 0 ? my_tokens() : 0;
      continue;  // one message for all: pack_gather
    }
    const std::size_t bytes = talks_to(peer) ? message_bytes(routed_direction(), destination.rows, destination.pairs, row_bytes_) : 0;
    send_messages_[peer] = outgoing_.span(offset, bytes);
    offset += aligned(bytes);
  }
}

void HostExpertExchange::pack_dispatch(const RoutedRows& routed) {
  for (std::size_t peer = 0; peer < members_; ++peer) {
    Peer& destination = destinations_[peer];
    destination.rows_packed = 0;
    destination.pairs_packed = 0;
    last_row_[peer] = -1;
    if (talks_to(peer)) {
      write_header(send_messages_[peer], routed_direction(), position_, static_cast<int>(me_), destination.rows, destination.pairs);
    }
  }
  const std::int32_t top_k = options_.top_k;
  for (std::int32_t slot = 0; slot < my_tokens() * top_k; ++slot) {
    const std::int32_t row = slot / top_k;
    const std::int32_t expert = routed.expert_ids[static_cast<std::size_t>(slot)];
    const auto peer = static_cast<std::size_t>(destination_of_[static_cast<std::size_t>(expert)]);
    Peer& destination = destinations_[peer];
    const std::span<std::byte> message = send_messages_[peer];
    if (std::exchange(last_row_[peer], row) != row) {
      const std::size_t offset = first_row_offset(routed_direction(), destination.pairs) + static_cast<std::size_t>(destination.rows_packed++) * row_bytes_;
      std::memcpy(message.subspan(offset, row_bytes_).data(), routed.rows.subspan(static_cast<std::size_t>(row) * hidden(), hidden()).data(), row_bytes_);
    }
    slots_.span()[static_cast<std::size_t>(destination.pairs_begin + destination.pairs_packed)] = slot;
    if (sums()) {
      write_weight(message, routed_direction(), destination.pairs, destination.pairs_packed, routed.weights[static_cast<std::size_t>(slot)]);
    }
    write_pair(message, destination.pairs_packed++, {destination.rows_packed - 1, expert});
  }
}

void HostExpertExchange::pack_gather(const RoutedRows& routed) {
  const std::int32_t pairs = my_tokens() * options_.top_k;
  const std::span<std::byte> message = outgoing_.span(0, my_tokens() > 0 ? message_bytes(gather_direction(), my_tokens(), pairs, row_bytes_) : 0);
  if (!message.empty()) {
    write_header(message, gather_direction(), position_, static_cast<int>(me_), my_tokens(), pairs);
    write_experts(message, routed.expert_ids);
    for (std::int32_t pair = 0; sums() && pair < pairs; ++pair) {
      write_weight(message, gather_direction(), pairs, pair, routed.weights[static_cast<std::size_t>(pair)]);
    }
    std::memcpy(message.subspan(first_row_offset(gather_direction(), pairs)).data(), routed.rows.data(), routed.rows.size_bytes());
  }
  for (std::size_t peer = 0; peer < members_; ++peer) {
    send_messages_[peer] = talks_to(peer) ? message : std::span<std::byte>();
    destinations_[peer].pairs_packed = 0;
  }
  for (std::int32_t slot = 0; slot < pairs; ++slot) {
    Peer& destination = destinations_[static_cast<std::size_t>(destination_of_[static_cast<std::size_t>(routed.expert_ids[static_cast<std::size_t>(slot)])])];
    slots_.span()[static_cast<std::size_t>(destination.pairs_begin + destination.pairs_packed++)] = slot;
  }
}

Status HostExpertExchange::start_exchange() {
  for (std::size_t peer = 0; peer < members_; ++peer) {
    sends_[peer] = send_messages_[peer];
  }
  LOCKSTEP_ASSIGN_OR_RETURN(ticket_, communicator_.start_all_to_all({.send = sends_, .receive = receives_}));
  for (std::size_t peer = 0; peer < members_; ++peer) {
    wire_bytes_ += peer == me_ ? 0 : sends_[peer].size();
  }
  return {};
}

Status HostExpertExchange::start_dispatch(const ExchangePosition& position, const DPMetadata& tokens, const RoutedRows& routed) {
  expect_stage(Stage::kIdle, "start_dispatch");
  position_ = position;
  LOCKSTEP_RETURN_IF_ERROR(take_tokens(tokens));
  const auto mine = static_cast<std::size_t>(my_tokens());
  const std::size_t pairs = mine * static_cast<std::size_t>(options_.top_k);
  LOCKSTEP_CHECK(routed.rows.size() == mine * hidden() && routed.expert_ids.size() == pairs && (!sums() || routed.weights.size() == pairs),
                 "member {}: {} values, {} expert ids and {} weights for {} rows of {} values and {} experts each", me_, routed.rows.size(),
                 routed.expert_ids.size(), routed.weights.size(), mine, options_.hidden, options_.top_k);
  count_pairs(routed.expert_ids);
  if (gathers_) {
    pack_gather(routed);
  } else {
    pack_dispatch(routed);
  }
  // How many rows come is known only after the peers' routing, so receives are posted at what they may send at most.
  std::size_t offset = 0;
  for (std::size_t peer = 0; peer < members_; ++peer) {
    const ExpectedMessage most = expected_from(peer, outward());
    const std::size_t bytes = hears_from(peer) ? message_bytes(most.direction, most.rows_max, most.pairs_max, row_bytes_) : 0;
    receives_[peer] = incoming_.span(offset, bytes);
    offset += aligned(bytes);
  }
  LOCKSTEP_RETURN_IF_ERROR(start_exchange());
  for (std::size_t peer = 0; peer < members_; ++peer) {
    crossed_rows_ += peer == me_ ? 0 : static_cast<std::uint64_t>(destinations_[peer].rows);
  }
  stage_ = Stage::kDispatching;
  return {};
}

bool HostExpertExchange::arrived() {
  LOCKSTEP_CHECK(stage_ == Stage::kDispatching || stage_ == Stage::kCombining, "member {}: nothing is under way at stage {}", me_, static_cast<int>(stage_));
  const Result<bool> done = communicator_.test(ticket_);
  return !done || *done;  // the wait says what failed
}

Status HostExpertExchange::wait_exchange(ExchangeDirection direction, const Deadline& deadline) {
  Status status = communicator_.wait_all_to_all(ticket_, received_bytes_, deadline);
  if (status) {
    return status;
  }
  // The communicator knows its operation's number only; where in the model it stood, and what was agreed, is what the reader of the log needs.
  Error error = std::move(status).error();
  error.message = fmt::format("{} of step {}, layer {}, micro-batch {}: {}", direction_name(direction), position_.step, position_.layer, position_.micro_batch,
                              error.message);
  if (error.code == ErrorCode::kDiverged && error.rank && *error.rank >= 0 && *error.rank < static_cast<int>(members_)) {
    const ExpectedMessage agreed = expected_from(static_cast<std::size_t>(*error.rank), direction);
    error.message += fmt::format("; by our plan member {} may send at most {} rows and {} pairs", *error.rank, agreed.rows_max, agreed.pairs_max);
  }
  return error;
}

ExpectedMessage HostExpertExchange::expected_from(std::size_t peer, ExchangeDirection direction) const {
  ExpectedMessage expected{.direction = direction,
                           .position = position_,
                           .sender = static_cast<std::int32_t>(peer),
                           .receiver = static_cast<std::int32_t>(me_),
                           .rows_max = tokens_[peer],
                           .pairs_max = 0,
                           .row_bytes = row_bytes_};
  switch (direction) {
    case ExchangeDirection::kDispatch:
    case ExchangeDirection::kWeightedDispatch:
    case ExchangeDirection::kRouting:
      expected.pairs_max = pairs_capacity(sources_[peer], tokens_[peer]);
      break;
    case ExchangeDirection::kGather:
    case ExchangeDirection::kWeightedGather:
      expected.pairs_max = tokens_[peer] * options_.top_k;
      break;
    case ExchangeDirection::kCombine:
      expected.rows_max = destinations_[peer].answers;
      expected.pairs_max = destinations_[peer].pairs;
      break;
  }
  return expected;
}

Status HostExpertExchange::check_dispatch(std::size_t source) {
  sources_[source].rows = 0;
  sources_[source].pairs = 0;
  sources_[source].pairs_begin = source == 0 ? 0 : sources_[source - 1].pairs_begin + sources_[source - 1].pairs;
  if (!hears_from(source)) {
    return {};
  }
  const ExpectedMessage expected = expected_from(source, outward());
  LOCKSTEP_ASSIGN_OR_RETURN(const ExchangeHeader header, read_header(message_from(source), expected));
  LOCKSTEP_RETURN_IF_ERROR(gathers_ ? check_experts(message_from(source), header, expected, options_.top_k, placement_)
                                    : check_pairs(message_from(source), header, expected, placement_));
  take_pairs(source, header);
  return {};
}

/// The pairs of a checked message that are ours. Called by ascending source, once for each that sent.
void HostExpertExchange::take_pairs(std::size_t source, const ExchangeHeader& header) {
  const std::span<const std::byte> message = message_from(source);
  std::int32_t taken = 0;
  std::int32_t rows_taken = 0;
  std::int32_t last_row = -1;
  for (std::int32_t i = 0; i < header.pairs; ++i) {
    const RoutedPair pair = gathers_ ? RoutedPair{.row = i / options_.top_k, .expert = read_expert(message, i)} : read_pair(message, i);
    if (!gathers_ || placement_.serving_member(pair.expert, static_cast<int>(source)) == static_cast<std::int32_t>(me_)) {
      const auto at = static_cast<std::size_t>(sources_[source].pairs_begin + taken++);
      received_pairs_.span()[at] = pair;
      rows_taken += std::exchange(last_row, pair.row) != pair.row ? 1 : 0;
      if (sums()) {
        received_weights_.span()[at] = read_weight(message, outward(), header.pairs, i);
      }
    }
  }
  sources_[source].answers = sums() ? rows_taken : taken;
  sources_[source].rows = header.rows;
  sources_[source].pairs = taken;
  sources_[source].first_row = first_row_offset(outward(), header.pairs);
}

/// A counting sort by expert. Sources are taken in ascending order and each in its own, so the rows of one expert come in the same order whatever the timing.
void HostExpertExchange::group_received_rows() {
  std::ranges::fill(offsets_, 0);
  const std::span<const RoutedPair> pairs = received_pairs_.span(0, static_cast<std::size_t>(sources_.back().pairs_begin + sources_.back().pairs));
  const auto local_index = [this](const RoutedPair& pair) { return static_cast<std::size_t>(local_index_of_[static_cast<std::size_t>(pair.expert)]); };
  for (const RoutedPair& pair : pairs) {
    ++offsets_[local_index(pair) + 1];
  }
  for (std::size_t expert = 0; expert < next_of_.size(); ++expert) {
    next_of_[expert] = offsets_[expert];
    offsets_[expert + 1] += offsets_[expert];
  }
  for (std::size_t source = 0; source < members_; ++source) {
    const Peer& peer = sources_[source];
    const std::span<const std::byte> message = message_from(source);
    for (std::int32_t i = peer.pairs_begin; i < peer.pairs_begin + peer.pairs; ++i) {
      const RoutedPair& pair = pairs[static_cast<std::size_t>(i)];
      const std::int32_t to = next_of_[local_index(pair)]++;
      positions_.span()[static_cast<std::size_t>(i)] = to;
      std::memcpy(row_at(received_, to), message.subspan(peer.first_row + static_cast<std::size_t>(pair.row) * row_bytes_, row_bytes_).data(), row_bytes_);
    }
  }
}

Status HostExpertExchange::finish_dispatch(const Deadline& deadline) {
  expect_stage(Stage::kDispatching, "finish_dispatch");
  LOCKSTEP_RETURN_IF_ERROR(wait_exchange(outward(), deadline));
  // All messages are checked before any is used: a peer that diverged must not leave half of a step behind.
  for (std::size_t source = 0; source < members_; ++source) {
    LOCKSTEP_RETURN_IF_ERROR(check_dispatch(source));
  }
  group_received_rows();
  stage_ = Stage::kDispatched;
  return {};
}

void HostExpertExchange::pack_outputs(const Peer& source, std::span<std::byte> rows) {
  for (std::int32_t i = 0; i < source.pairs; ++i) {
    const std::int32_t position = positions_.span()[static_cast<std::size_t>(source.pairs_begin + i)];
    std::memcpy(rows.subspan(static_cast<std::size_t>(i) * row_bytes_, row_bytes_).data(), row_at(outputs_, position), row_bytes_);
  }
}

/// One row for each row that has pairs here: its outputs, weighed and summed in expert order, in float32.
void HostExpertExchange::pack_sums(const Peer& source, std::span<std::byte> rows) {
  std::size_t packed = 0;
  for (std::int32_t pair = source.pairs_begin; pair < source.pairs_begin + source.pairs;) {
    const std::int32_t row = received_pairs_.span()[static_cast<std::size_t>(pair)].row;
    std::ranges::fill(sum_, 0.0F);
    for (; pair < source.pairs_begin + source.pairs && received_pairs_.span()[static_cast<std::size_t>(pair)].row == row; ++pair) {
      const float weight = received_weights_.span()[static_cast<std::size_t>(pair)];
      const BFloat16* const output = row_at(outputs_, positions_.span()[static_cast<std::size_t>(pair)]);
      for (std::size_t column = 0; column < sum_.size(); ++column) {
        sum_[column] += weight * static_cast<float>(output[column]);
      }
    }
    std::ranges::transform(sum_, rounded_sum_.begin(), [](float value) { return BFloat16(value); });
    std::memcpy(rows.subspan(packed++ * row_bytes_, row_bytes_).data(), rounded_sum_.data(), row_bytes_);
  }
}

void HostExpertExchange::take_outputs(const Peer& destination, std::span<const std::byte> rows) {
  for (std::int32_t i = 0; i < destination.pairs; ++i) {
    const std::int32_t slot = slots_.span()[static_cast<std::size_t>(destination.pairs_begin + i)];
    std::memcpy(row_at(combined_, slot), rows.subspan(static_cast<std::size_t>(i) * row_bytes_, row_bytes_).data(), row_bytes_);
  }
}

/// Called by ascending member: a row's sums lie side by side in that order.
void HostExpertExchange::take_sums(const Peer& destination, std::span<const std::byte> rows) {
  std::size_t taken = 0;
  std::int32_t last_row = -1;
  for (std::int32_t i = 0; i < destination.pairs; ++i) {
    const std::int32_t row = slots_.span()[static_cast<std::size_t>(destination.pairs_begin + i)] / options_.top_k;
    if (std::exchange(last_row, row) != row) {
      const auto place = row * static_cast<std::int32_t>(sums_per_row_) + sums_of_row_[static_cast<std::size_t>(row)]++;
      std::memcpy(row_at(combined_, place), rows.subspan(taken++ * row_bytes_, row_bytes_).data(), row_bytes_);
    }
  }
}

Status HostExpertExchange::start_combine() {
  expect_stage(Stage::kDispatched, "start_combine");
  std::size_t send_offset = 0;
  std::size_t receive_offset = 0;
  for (std::size_t peer = 0; peer < members_; ++peer) {
    // Who dispatched to us is answered, also when its message had no rows: who talks is decided by the plan, not by the routing. Gathered, both know it.
    const Peer& source = sources_[peer];
    const bool answers = hears_from(peer) && is_answered(source);
    const std::size_t send_bytes = answers ? message_bytes(ExchangeDirection::kCombine, source.answers, source.pairs, row_bytes_) : 0;
    const std::span<std::byte> message = outgoing_.span(send_offset, send_bytes);
    send_messages_[peer] = message;
    send_offset += aligned(send_bytes);
    if (answers) {
      write_header(message, ExchangeDirection::kCombine, position_, static_cast<int>(me_), source.answers, source.pairs);
      const std::span<std::byte> rows = message.subspan(first_row_offset(ExchangeDirection::kCombine, source.pairs));
      if (sums()) {
        pack_sums(source, rows);
      } else {
        pack_outputs(source, rows);
      }
    }
    const Peer& destination = destinations_[peer];
    const std::size_t receive_bytes =
        talks_to(peer) && is_answered(destination) ? message_bytes(ExchangeDirection::kCombine, destination.answers, destination.pairs, row_bytes_) : 0;
    receives_[peer] = incoming_.span(receive_offset, receive_bytes);
    receive_offset += aligned(receive_bytes);
  }
  LOCKSTEP_RETURN_IF_ERROR(start_exchange());
  stage_ = Stage::kCombining;
  return {};
}

Status HostExpertExchange::finish_combine(const Deadline& deadline) {
  expect_stage(Stage::kCombining, "finish_combine");
  LOCKSTEP_RETURN_IF_ERROR(wait_exchange(ExchangeDirection::kCombine, deadline));
  std::ranges::fill(sums_of_row_, 0);
  for (std::size_t peer = 0; peer < members_; ++peer) {
    if (!talks_to(peer) || !is_answered(destinations_[peer])) {
      continue;
    }
    const std::span<const std::byte> message = message_from(peer);
    LOCKSTEP_ASSIGN_OR_RETURN(const ExchangeHeader header, read_header(message, expected_from(peer, ExchangeDirection::kCombine)));
    const std::span<const std::byte> rows = message.subspan(first_row_offset(ExchangeDirection::kCombine, header.pairs));
    if (sums()) {
      take_sums(destinations_[peer], rows);
    } else {
      take_outputs(destinations_[peer], rows);
    }
  }
  for (std::size_t row = 0; sums() && row < static_cast<std::size_t>(my_tokens()); ++row) {
    const auto have = static_cast<std::size_t>(sums_of_row_[row]);
    std::ranges::fill(combined_.span((row * sums_per_row_ + have) * hidden(), (sums_per_row_ - have) * hidden()), BFloat16(0.0F));
  }
  stage_ = Stage::kIdle;
  return {};
}

std::span<const BFloat16> HostExpertExchange::combined() const {
  const std::size_t per_row = sums() ? sums_per_row_ : static_cast<std::size_t>(options_.top_k);
  return combined_.span(0, static_cast<std::size_t>(my_tokens()) * per_row * hidden());
}

Status check_options(const GroupView& view, const Placement& placement, const ExpertExchangeOptions& options) {
  const auto invalid = [](std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message)}; };
  if (options.hidden < 1) {
    return invalid(fmt::format("expert exchange of rows of {} values, expected at least 1", options.hidden));
  }
  if (options.top_k < 1 || options.top_k > placement.expert_count()) {
    return invalid(fmt::format("{} experts per token, expected 1 to the model's {}", options.top_k, placement.expert_count()));
  }
  if (options.rows_max < 1) {
    return invalid(fmt::format("micro-batches of at most {} rows, expected at least 1", options.rows_max));
  }
  // Rows are counted in int32 on the wire and in `offsets`; a member can receive every row of every member for each of its experts.
  constexpr std::int64_t kRowsLimit = std::numeric_limits<std::int32_t>::max();
  const std::int64_t pairs = std::int64_t{options.rows_max} * options.top_k;
  if (pairs > kRowsLimit || pairs * view.size() > kRowsLimit) {
    return invalid(fmt::format("{} rows, {} experts per token and {} members give more than {} rows in one exchange: lower the limit on tokens per step",
                               options.rows_max, options.top_k, view.size(), kRowsLimit));
  }
  return {};
}

}  // namespace

bool exchanges_on_device(Communicator& communicator, const device::Device* device, CombineMode combine) {
  // Sums of a rank's experts are made by the host.
  return device != nullptr && !device->host_memory() && combine == CombineMode::kPerExpert &&
         (communicator.size() == 1 || communicator.device_messages() != nullptr);
}

Result<std::unique_ptr<ExpertExchange>> ExpertExchange::create(Communicator& communicator, const GroupView& view, const Placement& placement,
                                                               const ExpertExchangeOptions& options) {
  LOCKSTEP_CHECK(communicator.rank() == view.my_index && communicator.size() == view.size(), "communicator {} of {} for member {} of {}", communicator.rank(),
                 communicator.size(), view.my_index, view.size());
  LOCKSTEP_RETURN_IF_ERROR(check_options(view, placement, options));
  try {
    if (exchanges_on_device(communicator, options.device, options.combine)) {
      LOCKSTEP_CHECK(options.ops != nullptr, "an exchange on the device of member {} without ops", view.my_index);
      return DeviceExpertExchange::create(communicator.device_messages(), communicator, view, placement, options);
    }
    auto exchange = std::make_unique<HostExpertExchange>(communicator, view, placement, options);
    LOCKSTEP_RETURN_IF_ERROR(exchange->allocate());
    return std::unique_ptr<ExpertExchange>(std::move(exchange));
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kResourceExhausted,
                 fmt::format("no memory for an expert exchange of {} rows of {} values among {} members: lower the limit on tokens per step", options.rows_max,
                             options.hidden, view.size())};
  }
}

}  // namespace lockstep::comm
