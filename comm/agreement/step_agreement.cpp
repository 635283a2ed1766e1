#include "lockstep/comm/step_agreement.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "comm/agreement/divergence.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::comm {

namespace {

// The handshake's record of one member. FROZEN: every version of lockstep, past or future, sends kHandshakeWords words per member with these meanings, or
// versions could not refuse each other. What a later version has to say goes into the spare words, which this one sends as zeros and does not look at.
enum class HandshakeWord : std::size_t { kMagic, kProtocolVersion, kConfigHashLow, kConfigHashHigh, kSpare0, kSpare1, kSpare2, kSpare3, kCount };
constexpr std::size_t kHandshakeWords = static_cast<std::size_t>(HandshakeWord::kCount);
static_assert(kHandshakeWords == 8, "the handshake's size is part of every version's protocol");
static_assert(kHandshakeWords <= kStepFieldCount, "the step matrix's buffers are used for the handshake too");

/// Member-major, unlike the step matrix: a record stays in one piece whatever later versions put into it.
std::uint32_t word_of(std::span<const std::int32_t> records, std::size_t member, HandshakeWord word) {
  return static_cast<std::uint32_t>(records[member * kHandshakeWords + static_cast<std::size_t>(word)]);
}

struct HandshakeField {
  std::string_view name;
  HandshakeWord low;
  HandshakeWord high;  // == low for a field of one word
  ValueFormat format;
  std::string_view advice;
};
// In the order in which they must be compared: a hash means nothing between two versions, and a version nothing without the magic.
constexpr std::array kHandshakeFields{
    HandshakeField{"magic", HandshakeWord::kMagic, HandshakeWord::kMagic, ValueFormat::kHex32, "start the same lockstepd on every rank"},
    HandshakeField{"protocol_version", HandshakeWord::kProtocolVersion, HandshakeWord::kProtocolVersion, ValueFormat::kDecimal,
                   "install the same version of lockstep on every host"},
    HandshakeField{"config_hash", HandshakeWord::kConfigHashLow, HandshakeWord::kConfigHashHigh, ValueFormat::kHex64,
                   "start every rank with the same model, options and CPU instruction set; the start logs list what the hash is made of"},
};

std::int64_t value_of(std::span<const std::int32_t> records, std::size_t member, const HandshakeField& field) {
  const std::uint32_t low = word_of(records, member, field.low);
  if (field.low == field.high) {
    return static_cast<std::int32_t>(low);
  }
  return static_cast<std::int64_t>(std::uint64_t{word_of(records, member, field.high)} << 32U | low);
}

/// Compares all members with ourselves; the all-reduce was fixed in size, so even a foreign version's record can be read this far.
Status compare_records(std::span<const std::int32_t> records, std::size_t my_index) {
  std::vector<std::int64_t> values(records.size() / kHandshakeWords);
  for (const HandshakeField& field : kHandshakeFields) {
    for (std::size_t member = 0; member < values.size(); ++member) {
      values[member] = value_of(records, member, field);
    }
    const std::int64_t ours = values[my_index];
    const auto other = std::ranges::find_if(values, [&](std::int64_t value) { return value != ours; });
    if (other == values.end()) {
      continue;
    }
    Error error = field_differs(fmt::format("handshake: {}", field.name), values, field.format,
                                fmt::format("ours (member {}) is {}; {}", my_index, format_value(ours, field.format), field.advice));
    if (!error.rank) {
      error.rank = static_cast<int>(other - values.begin());
    }
    return error;
  }
  return {};
}

}  // namespace

StepAgreement::StepAgreement(Communicator& communicator, const GroupView& view)
    : communicator_(communicator),
      member_index_(view.my_index),
      member_count_(view.size()),
      outgoing_(kStepFieldCount * view.members.size()),
      matrix_(kStepFieldCount * view.members.size()) {
  LOCKSTEP_CHECK(communicator.rank() == member_index_ && communicator.size() == member_count_, "communicator {} of {} for member {} of {}", communicator.rank(),
                 communicator.size(), member_index_, member_count_);
}

Status StepAgreement::handshake(std::uint64_t config_hash, std::int32_t protocol_version, const Deadline& deadline) {
  const auto me = static_cast<std::size_t>(member_index_);
  const std::size_t words = kHandshakeWords * static_cast<std::size_t>(member_count_);
  const auto outgoing = std::span(outgoing_).first(words);
  const auto records = std::span(matrix_).first(words);
  std::ranges::fill(outgoing, 0);
  const auto set = [&](HandshakeWord word, auto value) {
    outgoing[me * kHandshakeWords + static_cast<std::size_t>(word)] = static_cast<std::int32_t>(static_cast<std::uint32_t>(value));
  };
  set(HandshakeWord::kMagic, kProtocolMagic);
  set(HandshakeWord::kProtocolVersion, protocol_version);
  set(HandshakeWord::kConfigHashLow, config_hash);
  set(HandshakeWord::kConfigHashHigh, config_hash >> 32U);
  LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, communicator_.start_all_reduce(outgoing, ReduceOp::kSum));
  if (Status status = communicator_.wait(ticket, records, deadline); !status) {
    Error error = std::move(status).error();
    error.message = fmt::format("handshake: {}", error.message);
    return error;
  }
  return compare_records(records, me);
}

Status StepAgreement::start(const StepProposal& proposal) {
  encode_proposal(proposal, member_index_, member_count_, outgoing_);
  LOCKSTEP_ASSIGN_OR_RETURN(ticket_, communicator_.start_all_reduce(outgoing_, ReduceOp::kSum));
  under_way_ = true;
  return {};
}

void StepAgreement::test() {
  if (under_way_) {
    const Result<bool> complete = communicator_.test(ticket_);
    under_way_ = complete && !*complete;
  }
}

Status StepAgreement::finish(StepPlan& plan, const Deadline& deadline) {
  under_way_ = false;
  LOCKSTEP_RETURN_IF_ERROR(communicator_.wait(ticket_, matrix_, deadline));
  return decide(matrix_, member_count_, plan);
}

}  // namespace lockstep::comm
