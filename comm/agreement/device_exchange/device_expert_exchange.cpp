#include "comm/agreement/device_exchange/device_expert_exchange.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"

namespace lockstep::comm {

namespace {

/// A list's rows travel on their own.
constexpr std::size_t kNoRowBytes = 0;

}  // namespace

Result<std::unique_ptr<ExpertExchange>> DeviceExpertExchange::create(DeviceMessages* messages, Communicator& communicator, const GroupView& view,
                                                                     const Placement& placement, const ExpertExchangeOptions& options) {
  std::unique_ptr<DeviceExpertExchange> made(new DeviceExpertExchange(messages, communicator, view, placement, options));
  LOCKSTEP_RETURN_IF_ERROR(made->allocate());
  return std::unique_ptr<ExpertExchange>(std::move(made));
}

DeviceExpertExchange::DeviceExpertExchange(DeviceMessages* messages, Communicator& communicator, const GroupView& view, const Placement& placement,
                                           const ExpertExchangeOptions& options)
    : messages_(messages),
      communicator_(communicator),
      placement_(placement),
      options_(options),
      members_(view.members.size()),
      me_(static_cast<std::size_t>(view.my_index)),
      row_bytes_(static_cast<std::size_t>(options.hidden) * sizeof(BFloat16)),
      tokens_(members_),
      destinations_(members_),
      sources_(members_),
      lists_(members_),
      lists_to_send_(members_),
      lists_to_come_(members_),
      last_row_(members_),
      written_(members_) {
  for (int expert = 0; expert < placement.expert_count(); ++expert) {
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

Status DeviceExpertExchange::allocate() {
  const auto rows_max = static_cast<std::size_t>(options_.rows_max);
  const std::size_t pairs_out_max = rows_max * static_cast<std::size_t>(options_.top_k);
  std::size_t pairs_in_max = 0;
  std::size_t rows_in_max = 0;
  std::size_t list_bytes_in = 0;
  std::size_t destination_count = 0;
  for (std::size_t peer = 0; peer < members_; ++peer) {
    const std::int32_t pairs = options_.rows_max * std::min(options_.top_k, sources_[peer].experts);
    pairs_in_max += static_cast<std::size_t>(pairs);
    rows_in_max += peer != me_ && pairs > 0 ? rows_max : 0;
    list_bytes_in += aligned(message_bytes(ExchangeDirection::kRouting, options_.rows_max, pairs, kNoRowBytes));
    destination_count += destinations_[peer].experts > 0 ? 1 : 0;
  }
  const std::size_t rows_out_max = rows_max * std::min(static_cast<std::size_t>(options_.top_k), destination_count);
  outgoing_ = Arena<std::byte>(members_ * (aligned(sizeof(ExchangeHeader)) + kAlignment) + pairs_out_max * sizeof(RoutedPair));
  incoming_ = Arena<std::byte>(list_bytes_in);
  slots_ = Arena<std::int32_t>(pairs_out_max);
  pairs_ = Arena<RoutedPair>(pairs_in_max);
  positions_ = Arena<std::int32_t>(pairs_in_max);
  receive_begin_ = std::max(rows_out_max, pairs_in_max);
  pack_index_.reserve(receive_begin_);
  take_index_.reserve(std::max(pairs_in_max, pairs_out_max));
  device::Device& device = *options_.device;
  LOCKSTEP_ASSIGN_OR_RETURN(travelling_, device.allocate((receive_begin_ + (members_ > 1 ? std::max(rows_in_max, pairs_out_max) : 0)) * row_bytes_));
  LOCKSTEP_ASSIGN_OR_RETURN(received_, device.allocate(pairs_in_max * row_bytes_));
  LOCKSTEP_ASSIGN_OR_RETURN(outputs_, device.allocate(pairs_in_max * row_bytes_));
  LOCKSTEP_ASSIGN_OR_RETURN(combined_, device.allocate(pairs_out_max * row_bytes_));
  // Before what computes: rows that travel hold up other devices, too.
  LOCKSTEP_ASSIGN_OR_RETURN(stream_, device.make_stream(fmt::format("exchange-{}", options_.lane), device::StreamPriority::kHigh));
  computed_event_ = device.make_event();
  arrived_event_ = device.make_event();
  return {};
}

void DeviceExpertExchange::expect_stage(Stage stage, std::string_view call) const {
  LOCKSTEP_CHECK(stage_ == stage, "member {}: {} at stage {}, expected stage {}: dispatch and combine must be started and finished in turn", me_, call,
                 static_cast<int>(stage_), static_cast<int>(stage));
}

Status DeviceExpertExchange::take_tokens(const DPMetadata& tokens) {
  LOCKSTEP_CHECK(static_cast<std::size_t>(tokens.world_size()) == members_ && static_cast<std::size_t>(tokens.rank()) == me_,
                 "token counts of member {} of {} at member {} of {}", tokens.rank(), tokens.world_size(), me_, members_);
  LOCKSTEP_RETURN_IF_ERROR(check_token_counts(tokens, position_, options_.rows_max));
  std::ranges::copy(tokens.tokens_per_rank(), tokens_.begin());
  return {};
}

/// What goes where, and the rows in the order in which they go.
void DeviceExpertExchange::count_routed(std::span<const std::int32_t> expert_ids) {
  for (std::size_t peer = 0; peer < members_; ++peer) {
    destinations_[peer].rows = 0;
    destinations_[peer].pairs = 0;
    last_row_[peer] = -1;
  }
  const std::int32_t top_k = options_.top_k;
  for (std::int32_t slot = 0; slot < tokens_[me_] * top_k; ++slot) {
    const std::int32_t expert = expert_ids[static_cast<std::size_t>(slot)];
    LOCKSTEP_CHECK(expert >= 0 && expert < placement_.expert_count(), "row {}: expert {} of {}", slot / top_k, expert, placement_.expert_count());
    LOCKSTEP_CHECK(slot % top_k == 0 || expert_ids[static_cast<std::size_t>(slot - 1)] < expert, "row {}: expert {} after {}, expected ascending ones",
                   slot / top_k, expert, expert_ids[static_cast<std::size_t>(slot - 1)]);
    Part& destination = destinations_[static_cast<std::size_t>(destination_of_[static_cast<std::size_t>(expert)])];
    std::int32_t& last = last_row_[static_cast<std::size_t>(destination_of_[static_cast<std::size_t>(expert)])];
    ++destination.pairs;
    destination.rows += std::exchange(last, slot / top_k) != slot / top_k ? 1 : 0;
  }
  std::int32_t first_row = 0;
  std::int32_t first_pair = 0;
  std::size_t offset = 0;
  for (std::size_t peer = 0; peer < members_; ++peer) {
    Part& destination = destinations_[peer];
    destination.first_row = std::exchange(first_row, first_row + destination.rows);
    destination.first_pair = std::exchange(first_pair, first_pair + destination.pairs);
    const bool talks = tokens_[me_] > 0 && destination.experts > 0;
    lists_[peer] = outgoing_.span(offset, talks ? message_bytes(ExchangeDirection::kRouting, destination.rows, destination.pairs, kNoRowBytes) : 0);
    offset += aligned(lists_[peer].size());
  }
  pack_index_.resize(static_cast<std::size_t>(first_row));
}

void DeviceExpertExchange::write_lists(std::span<const std::int32_t> expert_ids) {
  for (std::size_t peer = 0; peer < members_; ++peer) {
    written_[peer] = {};
    last_row_[peer] = -1;
    if (!lists_[peer].empty()) {
      write_header(lists_[peer], ExchangeDirection::kRouting, position_, static_cast<int>(me_), destinations_[peer].rows, destinations_[peer].pairs);
    }
  }
  const std::int32_t top_k = options_.top_k;
  for (std::int32_t slot = 0; slot < tokens_[me_] * top_k; ++slot) {
    const std::int32_t expert = expert_ids[static_cast<std::size_t>(slot)];
    const auto peer = static_cast<std::size_t>(destination_of_[static_cast<std::size_t>(expert)]);
    Part& written = written_[peer];
    if (std::exchange(last_row_[peer], slot / top_k) != slot / top_k) {
      pack_index_[static_cast<std::size_t>(destinations_[peer].first_row + written.rows++)] = slot / top_k;
    }
    slots_.span()[static_cast<std::size_t>(destinations_[peer].first_pair + written.pairs)] = slot;
    write_pair(lists_[peer], written.pairs++, {written.rows - 1, expert});
  }
}

void DeviceExpertExchange::pack(const BFloat16* from, std::size_t rows) {
  if (rows > 0) {
    stream_->enqueue([this, from]() -> Status {
      options_.ops->gather_rows(*stream_, from, pack_index_, options_.hidden, travelling_.as<BFloat16>());
      return {};
    });
  }
}

Status DeviceExpertExchange::start_dispatch(const ExchangePosition& position, const DPMetadata& tokens, const RoutedRows& routed) {
  expect_stage(Stage::kIdle, "start_dispatch");
  position_ = position;
  LOCKSTEP_RETURN_IF_ERROR(take_tokens(tokens));
  const auto mine = static_cast<std::size_t>(tokens_[me_]);
  LOCKSTEP_CHECK(routed.rows.size() == mine * hidden() && routed.expert_ids.size() == mine * static_cast<std::size_t>(options_.top_k),
                 "member {}: {} values and {} expert ids for {} rows of {} values and {} experts each", me_, routed.rows.size(), routed.expert_ids.size(), mine,
                 options_.hidden, options_.top_k);
  count_routed(routed.expert_ids);
  write_lists(routed.expert_ids);
  begin_mark_.set(*stream_);
  pack(routed.rows.data(), pack_index_.size());  // no wait: who has seen the experts' ids has waited for the rows
  std::size_t offset = 0;
  for (std::size_t peer = 0; peer < members_; ++peer) {
    const ExpectedMessage most = expected_from(peer);
    const bool hears = tokens_[peer] > 0 && sources_[peer].experts > 0;
    lists_to_come_[peer] = incoming_.span(offset, hears ? message_bytes(most.direction, most.rows_max, most.pairs_max, kNoRowBytes) : 0);
    offset += aligned(lists_to_come_[peer].size());
    crossed_rows_ += peer == me_ ? 0 : static_cast<std::uint64_t>(destinations_[peer].rows);
  }
  stage_ = Stage::kDispatching;
  return start_messages(true);
}

Status DeviceExpertExchange::start_messages(bool with_lists) {
  if (members_ == 1) {
    // Nobody to tell: the list is what has come.
    if (with_lists) {
      std::ranges::copy(lists_[0], lists_to_come_[0].begin());
    }
    const std::size_t bytes = with_lists ? lists_[0].size() : 0;
    DeviceMessage none;
    return lay_out(std::span(&bytes, 1), std::span(&none, 1), std::span(&none, 1));
  }
  std::ranges::copy(lists_, lists_to_send_.begin());
  DeviceAllToAll exchange{.lane = options_.lane, .stream = stream_.get(), .layout = this};
  if (with_lists) {
    exchange.lists = {.send = lists_to_send_, .receive = lists_to_come_};
    for (std::size_t peer = 0; peer < members_; ++peer) {
      wire_bytes_ += peer == me_ ? 0 : lists_[peer].size();
    }
  }
  LOCKSTEP_ASSIGN_OR_RETURN(ticket_, messages_->start_device_all_to_all(exchange));
  return {};
}

bool DeviceExpertExchange::arrived() {
  LOCKSTEP_CHECK(stage_ == Stage::kDispatching || stage_ == Stage::kCombining, "member {}: nothing is under way at stage {}", me_, static_cast<int>(stage_));
  if (members_ == 1) {
    return true;
  }
  const Result<bool> done = communicator_.test(ticket_);
  return !done || *done;  // the wait says what failed
}

ExpectedMessage DeviceExpertExchange::expected_from(std::size_t source) const {
  return {.direction = ExchangeDirection::kRouting,
          .position = position_,
          .sender = static_cast<std::int32_t>(source),
          .receiver = static_cast<std::int32_t>(me_),
          .rows_max = tokens_[source],
          .pairs_max = tokens_[source] * std::min(options_.top_k, sources_[source].experts),
          .row_bytes = kNoRowBytes};
}

Status DeviceExpertExchange::lay_out(std::span<const std::size_t> list_bytes, std::span<DeviceMessage> send, std::span<DeviceMessage> receive) {
  if (stage_ == Stage::kDispatching) {
    LOCKSTEP_RETURN_IF_ERROR(lay_out_dispatch(list_bytes, send, receive));
  } else {
    lay_out_combine(send, receive);
  }
  for (std::size_t peer = 0; peer < members_; ++peer) {
    wire_bytes_ += peer == me_ ? 0 : send[peer].bytes;
  }
  return {};
}

/// Called by ascending source.
Status DeviceExpertExchange::read_list(std::size_t source, std::size_t bytes) {
  Part& part = sources_[source];
  part.rows = 0;
  part.pairs = 0;
  const Part& before = sources_[source == 0 ? 0 : source - 1];
  part.first_pair = source == 0 ? 0 : before.first_pair + before.pairs;
  part.first_row = source == 0 ? 0 : before.first_row + (source - 1 == me_ ? 0 : before.rows);  // own rows do not come
  if (lists_to_come_[source].empty()) {
    return {};
  }
  const std::span<const std::byte> list = lists_to_come_[source].first(bytes);
  const ExpectedMessage expected = expected_from(source);
  LOCKSTEP_ASSIGN_OR_RETURN(const ExchangeHeader header, read_header(list, expected));
  LOCKSTEP_RETURN_IF_ERROR(check_pairs(list, header, expected, placement_));
  part.rows = header.rows;
  part.pairs = header.pairs;
  for (std::int32_t i = 0; i < header.pairs; ++i) {
    pairs_.span()[static_cast<std::size_t>(part.first_pair + i)] = read_pair(list, i);
  }
  return {};
}

Status DeviceExpertExchange::lay_out_dispatch(std::span<const std::size_t> list_bytes, std::span<DeviceMessage> send, std::span<DeviceMessage> receive) {
  for (std::size_t source = 0; source < members_; ++source) {
    LOCKSTEP_RETURN_IF_ERROR(read_list(source, list_bytes[source]));
  }
  group_rows();
  for (std::size_t peer = 0; peer < members_; ++peer) {
    if (peer != me_) {
      send[peer] = message_at(static_cast<std::size_t>(destinations_[peer].first_row), destinations_[peer].rows);
      receive[peer] = message_at(receive_begin_ + static_cast<std::size_t>(sources_[peer].first_row), sources_[peer].rows);
    }
  }
  return {};
}

/// A counting sort by expert: as of the exchange over the host's memory, so that an expert's rows come in the same order.
void DeviceExpertExchange::group_rows() {
  std::ranges::fill(offsets_, 0);
  const std::span<const RoutedPair> pairs = pairs_.span(0, static_cast<std::size_t>(sources_.back().first_pair + sources_.back().pairs));
  const auto local_index = [this](const RoutedPair& pair) { return static_cast<std::size_t>(local_index_of_[static_cast<std::size_t>(pair.expert)]); };
  for (const RoutedPair& pair : pairs) {
    ++offsets_[local_index(pair) + 1];
  }
  for (std::size_t expert = 0; expert < next_of_.size(); ++expert) {
    next_of_[expert] = offsets_[expert];
    offsets_[expert + 1] += offsets_[expert];
  }
  take_index_.resize(pairs.size());
  for (std::size_t source = 0; source < members_; ++source) {
    const Part& part = sources_[source];
    for (std::int32_t i = part.first_pair; i < part.first_pair + part.pairs; ++i) {
      const RoutedPair& pair = pairs[static_cast<std::size_t>(i)];
      const std::int32_t to = next_of_[local_index(pair)]++;
      positions_.span()[static_cast<std::size_t>(i)] = to;
      take_index_[static_cast<std::size_t>(to)] = place_of(source, destinations_[me_].first_row + pair.row, part.first_row + pair.row);
    }
  }
}

Status DeviceExpertExchange::finish(const Deadline& deadline, std::string_view what) {
  if (members_ > 1) {
    if (Status status = messages_->wait_until_enqueued(ticket_, deadline); !status) {
      Error error = std::move(status).error();
      error.message = fmt::format("{} of step {}, layer {}, micro-batch {}: {}", what, position_.step, position_.layer, position_.micro_batch, error.message);
      if (stage_ == Stage::kDispatching && error.code == ErrorCode::kDiverged && error.rank && *error.rank >= 0 && *error.rank < static_cast<int>(members_)) {
        const ExpectedMessage agreed = expected_from(static_cast<std::size_t>(*error.rank));
        error.message += fmt::format("; by our plan member {} may send at most {} rows and {} pairs", *error.rank, agreed.rows_max, agreed.pairs_max);
      }
      return error;
    }
  }
  end_mark_.set(*stream_);  // before what others wait for: who has seen that may ask for this
  stream_->record(*arrived_event_);
  return {};
}

Status DeviceExpertExchange::finish_dispatch(const Deadline& deadline) {
  expect_stage(Stage::kDispatching, "finish_dispatch");
  LOCKSTEP_RETURN_IF_ERROR(finish(deadline, "dispatch"));
  stage_ = Stage::kDispatched;
  return {};
}

void DeviceExpertExchange::take(device::Stream& stream, const device::StreamMark& taken) {
  LOCKSTEP_CHECK(stage_ == Stage::kDispatched || stage_ == Stage::kIdle, "member {}: take at stage {}", me_, static_cast<int>(stage_));
  stream.wait_for(*arrived_event_);
  taken.set(stream);
  if (take_index_.empty()) {
    return;
  }
  stream.enqueue([this, &stream]() -> Status {
    const device::Buffer& to = stage_ == Stage::kDispatched ? received_ : combined_;
    options_.ops->gather_rows(stream, travelling_.as<BFloat16>(), take_index_, options_.hidden, to.as<BFloat16>());
    return {};
  });
}

void DeviceExpertExchange::computed(device::Stream& stream) {
  stream.record(*computed_event_);
}

Status DeviceExpertExchange::start_combine() {
  expect_stage(Stage::kDispatched, "start_combine");
  const auto pairs = static_cast<std::size_t>(sources_.back().first_pair + sources_.back().pairs);
  const std::span<const std::int32_t> positions = positions_.span(0, pairs);
  pack_index_.assign(positions.begin(), positions.end());
  stream_->wait_for(*computed_event_);
  begin_mark_.set(*stream_);
  pack(outputs_.as<BFloat16>(), pairs);
  stage_ = Stage::kCombining;
  return start_messages(false);
}

void DeviceExpertExchange::lay_out_combine(std::span<DeviceMessage> send, std::span<DeviceMessage> receive) {
  take_index_.resize(static_cast<std::size_t>(tokens_[me_]) * static_cast<std::size_t>(options_.top_k));
  std::int32_t received = 0;
  for (std::size_t peer = 0; peer < members_; ++peer) {
    const Part& destination = destinations_[peer];
    for (std::int32_t i = 0; i < destination.pairs; ++i) {
      const auto slot = static_cast<std::size_t>(slots_.span()[static_cast<std::size_t>(destination.first_pair + i)]);
      take_index_[slot] = place_of(peer, sources_[me_].first_pair + i, received + i);
    }
    if (peer != me_) {
      send[peer] = message_at(static_cast<std::size_t>(sources_[peer].first_pair), sources_[peer].pairs);
      receive[peer] = message_at(receive_begin_ + static_cast<std::size_t>(received), destination.pairs);
      received += destination.pairs;
    }
  }
}

Status DeviceExpertExchange::finish_combine(const Deadline& deadline) {
  expect_stage(Stage::kCombining, "finish_combine");
  LOCKSTEP_RETURN_IF_ERROR(finish(deadline, "combine"));
  stage_ = Stage::kIdle;
  return {};
}

}  // namespace lockstep::comm
