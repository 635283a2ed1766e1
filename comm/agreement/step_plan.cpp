#include "lockstep/comm/step_plan.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "comm/agreement/divergence.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::comm {

namespace {

constexpr std::string_view kAdvice = "the group cannot go on: see the logs of these members, then restart it";

/// The matrix by its rows.
struct Rows {
  StepMatrix matrix;
  std::size_t members = 0;

  [[nodiscard]] StepMatrix operator[](StepField field) const { return matrix.subspan(static_cast<std::size_t>(field) * members, members); }
};

constexpr std::uint32_t low_word(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}
constexpr std::uint32_t high_word(std::uint64_t value) {
  return static_cast<std::uint32_t>(value >> 32U);
}

// For one word a step is a bijection of the state, and for one state a bijection of the word, so a change within any single word always changes the result. Add
// and rotate, because plain SSE2 has no 32-bit multiplication and this runs over the whole matrix. The member's index is part of the start: a column in another
// member's place is wrong too; and the start is never 0, so a column of zeros, which nobody wrote, cannot have a right checksum.
constexpr std::uint32_t checksum_start(std::size_t member) {
  return 0x80000001U | static_cast<std::uint32_t>(member) << 1U;
}
constexpr std::uint32_t checksum_step(std::uint32_t state, std::int32_t word) {
  return std::rotl(state + static_cast<std::uint32_t>(word), 7);
}

std::uint32_t checksum_of_column(const Rows& rows, std::size_t member) {
  std::uint32_t state = checksum_start(member);
  for (std::size_t field = 0; field < static_cast<std::size_t>(StepField::kChecksum); ++field) {
    state = checksum_step(state, rows.matrix[field * rows.members + member]);
  }
  return state;
}

/// The first member whose checksum is wrong. Goes row by row over blocks of columns: a column's words lie a row apart, and walking columns would touch one
/// cache line per word.
std::optional<std::size_t> find_bad_checksum(const Rows& rows) {
  constexpr std::size_t kBlock = 64;
  std::array<std::uint32_t, kBlock> states;  // not cleared: with a few members that would be most of the work
  const StepMatrix sent = rows[StepField::kChecksum];
  for (std::size_t begin = 0; begin < rows.members; begin += kBlock) {
    const std::size_t count = std::min(kBlock, rows.members - begin);
    for (std::size_t i = 0; i < count; ++i) {
      states[i] = checksum_start(begin + i);
    }
    for (std::size_t field = 0; field < static_cast<std::size_t>(StepField::kChecksum); ++field) {
      const StepMatrix words = rows.matrix.subspan(field * rows.members + begin, count);
      for (std::size_t i = 0; i < count; ++i) {
        states[i] = checksum_step(states[i], words[i]);
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (states[i] != static_cast<std::uint32_t>(sent[begin + i])) {
        return begin + i;
      }
    }
  }
  return std::nullopt;
}

Error bad_checksum(const Rows& rows, std::size_t member) {
  return {ErrorCode::kDiverged,
          fmt::format(
              "checksum of member {}'s column is 0x{:08x}, but its words give 0x{:08x}: they were changed on the way, or two processes wrote one column; {}",
              member, static_cast<std::uint32_t>(rows[StepField::kChecksum][member]), checksum_of_column(rows, member), kAdvice),
          static_cast<int>(member)};
}

struct Guard {
  std::string_view name;
  StepField low;
  std::optional<StepField> high;  // the field of the upper word of a 64-bit guard
  ValueFormat format;
};
constexpr std::array kGuards{
    Guard{"step", StepField::kStepLow, StepField::kStepHigh, ValueFormat::kDecimal},
    Guard{"epoch", StepField::kEpoch, std::nullopt, ValueFormat::kDecimal},
    Guard{"config_hash", StepField::kConfigHashLow, StepField::kConfigHashHigh, ValueFormat::kHex64},
};

// The passes over a row are plain loops without an early end: compilers turn those into vector code, and in the usual case the whole row has to be read anyway.
bool all_equal(StepMatrix row) {
  std::int32_t differences = 0;
  for (const std::int32_t word : row) {
    differences |= word ^ row.front();
  }
  return differences == 0;
}

std::int32_t maximum(StepMatrix row) {
  std::int32_t most = row.front();
  for (const std::int32_t word : row) {
    most = std::max(most, word);
  }
  return most;
}

std::int32_t minimum(StepMatrix row) {
  std::int32_t least = row.front();
  for (const std::int32_t word : row) {
    least = std::min(least, word);
  }
  return least;
}

std::int64_t guard_value(const Rows& rows, const Guard& guard, std::size_t member) {
  const std::int32_t low = rows[guard.low][member];
  if (!guard.high) {
    return low;
  }
  const auto high = static_cast<std::uint32_t>(rows[*guard.high][member]);
  return static_cast<std::int64_t>(std::uint64_t{high} << 32U | static_cast<std::uint32_t>(low));
}

Error guard_differs(const Rows& rows, const Guard& guard) {
  std::vector<std::int64_t> values(rows.members);
  for (std::size_t member = 0; member < rows.members; ++member) {
    values[member] = guard_value(rows, guard, member);
  }
  Error error = field_differs(guard.name, values, guard.format, kAdvice);
  if (const auto corrupted = find_bad_checksum(rows)) {
    error.message += fmt::format(" (the checksum of member {}'s column is wrong too: its words were changed on the way)", *corrupted);
    error.rank = static_cast<int>(*corrupted);
  }
  return error;
}

/// What any sound member can have written.
struct Bounds {
  StepField field;
  std::int32_t least;
  std::int32_t most;
};
constexpr std::int32_t kNoLimit = std::numeric_limits<std::int32_t>::max();
constexpr std::array kBounds{
    Bounds{StepField::kTokens, 0, kNoLimit},
    Bounds{StepField::kPrefillTokens, 0, kNoLimit},
    Bounds{StepField::kRequests, 0, kNoLimit},
    Bounds{StepField::kPaddedTokens, 0, kNoLimit},
    Bounds{StepField::kMicroBatches, 1, kNoLimit},
    Bounds{StepField::kGraphMode, 0, static_cast<std::int32_t>(GraphMode::kFull)},
    Bounds{StepField::kWaiting, 0, kNoLimit},
    Bounds{StepField::kFreeKvBlocks, 0, kNoLimit},
    Bounds{StepField::kUsedKvBlocks, 0, kNoLimit},
    Bounds{StepField::kWaitedUs, 0, kNoLimit},
    Bounds{StepField::kWish, 0, static_cast<std::int32_t>(ControlWish::kStop)},
};

Error out_of_bounds(const Bounds& bounds, StepMatrix row) {
  const auto found = std::ranges::find_if(row, [&](std::int32_t word) { return word < bounds.least || word > bounds.most; });
  const auto member = found - row.begin();
  const std::string expected = bounds.most == kNoLimit ? fmt::format("at least {}", bounds.least) : fmt::format("{} to {}", bounds.least, bounds.most);
  return {ErrorCode::kDiverged, fmt::format("{} of member {} is {}, expected {}; {}", step_field_name(bounds.field), member, *found, expected, kAdvice),
          static_cast<int>(member)};
}

Status check_values(const Rows& rows) {
  for (const Bounds& bounds : kBounds) {
    if (minimum(rows[bounds.field]) < bounds.least || (bounds.most != kNoLimit && maximum(rows[bounds.field]) > bounds.most)) {
      return out_of_bounds(bounds, rows[bounds.field]);
    }
  }
  const StepMatrix tokens = rows[StepField::kTokens];
  const StepMatrix prefill = rows[StepField::kPrefillTokens];
  std::int64_t total = 0;
  for (std::size_t member = 0; member < rows.members; ++member) {
    total += tokens[member];
    if (prefill[member] > tokens[member]) {
      return Error{ErrorCode::kDiverged,
                   fmt::format("prefill_tokens of member {} is {}, expected at most its {} tokens; {}", member, prefill[member], tokens[member], kAdvice),
                   static_cast<int>(member)};
    }
  }
  if (total > kNoLimit) {  // DPMetadata's offsets are int32
    const auto largest = std::ranges::max_element(tokens) - tokens.begin();
    return Error{ErrorCode::kDiverged,
                 fmt::format("tokens of all members are {}, expected at most {}; member {} has {}; {}", total, kNoLimit, largest,
                             tokens[static_cast<std::size_t>(largest)], kAdvice),
                 static_cast<int>(largest)};
  }
  return {};
}

Status check_matrix(const Rows& rows) {
  // Guards first: that a member is in another step says more than that its column's checksum is wrong.
  for (const Guard& guard : kGuards) {
    if (!all_equal(rows[guard.low]) || (guard.high && !all_equal(rows[*guard.high]))) {
      return guard_differs(rows, guard);
    }
  }
  if (const auto member = find_bad_checksum(rows)) {
    return bad_checksum(rows, *member);
  }
  return check_values(rows);
}

/// A drain ends when all members wish it and nobody has rows or anything waiting. One member's wish is not enough: another may have accepted a request after it
/// wrote its column. A member that wishes has closed its admission before, so its column counts all that it will ever have.
StepAction decide_action(bool any_rows, bool any_waiting, StepMatrix wishes) {
  const auto [weakest, strongest] = std::ranges::minmax(wishes);
  if (strongest >= static_cast<std::int32_t>(ControlWish::kStop)) {
    return StepAction::kStop;
  }
  if (any_rows) {
    return StepAction::kRun;
  }
  if (strongest == static_cast<std::int32_t>(ControlWish::kNone)) {
    return any_waiting ? StepAction::kSpin : StepAction::kSleep;
  }
  return any_waiting || weakest == static_cast<std::int32_t>(ControlWish::kNone) ? StepAction::kSpin : StepAction::kStop;
}

std::int64_t sum(StepMatrix row) {
  std::int64_t total = 0;
  for (const std::int32_t word : row) {
    total += word;
  }
  return total;
}

double balance(StepMatrix loads) {
  const std::int32_t most = maximum(loads);
  return most > 0 ? static_cast<double>(sum(loads)) / static_cast<double>(loads.size()) / most : 1.0;
}

/// Who comes last waits least.
int late_member(StepMatrix waits) {
  const auto [least, most] = std::ranges::minmax_element(waits);
  return *most - *least >= kLateUs ? static_cast<int>(least - waits.begin()) : -1;
}

/// The minimum over the members with rows, and no more than the longest member has rows: an idle member does not cancel the split for the others, and no
/// micro-batch is empty everywhere. 1 when nobody has rows.
std::int32_t common_micro_batches(StepMatrix tokens, StepMatrix wanted) {
  std::int32_t least = kNoLimit;
  std::int32_t longest = 0;
  for (std::size_t member = 0; member < tokens.size(); ++member) {
    if (tokens[member] > 0) {
      least = std::min(least, wanted[member]);
      longest = std::max(longest, tokens[member]);
    }
  }
  return longest > 0 ? std::min(least, longest) : 1;
}

}  // namespace

std::string_view step_field_name(StepField field) {
  constexpr std::array<std::string_view, kStepFieldCount> kNames{
      "step_low",      "step_high",  "epoch",   "config_hash_low", "config_hash_high", "tokens",    "prefill_tokens", "requests", "padded_tokens",
      "micro_batches", "graph_mode", "waiting", "free_kv_blocks",  "used_kv_blocks",   "waited_us", "wish",           "checksum"};
  const auto index = static_cast<std::size_t>(field);
  return index < kNames.size() ? kNames[index] : "unknown";
}

void encode_proposal(const StepProposal& proposal, int member_index, int member_count, std::span<std::int32_t> matrix) {
  LOCKSTEP_CHECK(member_index >= 0 && member_index < member_count, "member {} of {}", member_index, member_count);
  const auto members = static_cast<std::size_t>(member_count);
  const auto member = static_cast<std::size_t>(member_index);
  LOCKSTEP_CHECK(matrix.size() == kStepFieldCount * members, "matrix of {} words for {} members", matrix.size(), members);
  std::ranges::fill(matrix, 0);
  const auto set = [&](StepField field, auto word) { matrix[static_cast<std::size_t>(field) * members + member] = static_cast<std::int32_t>(word); };
  const auto step = static_cast<std::uint64_t>(proposal.step);
  set(StepField::kStepLow, low_word(step));
  set(StepField::kStepHigh, high_word(step));
  set(StepField::kEpoch, proposal.epoch);
  set(StepField::kConfigHashLow, low_word(proposal.config_hash));
  set(StepField::kConfigHashHigh, high_word(proposal.config_hash));
  set(StepField::kTokens, proposal.tokens);
  set(StepField::kPrefillTokens, proposal.prefill_tokens);
  set(StepField::kRequests, proposal.requests);
  set(StepField::kPaddedTokens, proposal.padded_tokens);
  set(StepField::kMicroBatches, proposal.micro_batches);
  set(StepField::kGraphMode, proposal.graph_mode);
  set(StepField::kWaiting, proposal.waiting);
  set(StepField::kFreeKvBlocks, proposal.free_kv_blocks);
  set(StepField::kUsedKvBlocks, proposal.used_kv_blocks);
  set(StepField::kWaitedUs, proposal.waited_us);
  set(StepField::kWish, proposal.wish);
  set(StepField::kChecksum, checksum_of_column({matrix, members}, member));
}

Status decide(StepMatrix matrix, int member_count, StepPlan& plan) {
  LOCKSTEP_CHECK(member_count >= 1 && matrix.size() == kStepFieldCount * static_cast<std::size_t>(member_count), "matrix of {} words for {} members",
                 matrix.size(), member_count);
  const Rows rows{matrix, static_cast<std::size_t>(member_count)};
  // Each cell has one writer and is zero in all other members' matrices: the int32 sums of the all-reduce cannot overflow.
  LOCKSTEP_RETURN_IF_ERROR(check_matrix(rows));

  const StepMatrix tokens = rows[StepField::kTokens];
  const std::int32_t tokens_max = maximum(tokens);
  const std::int32_t strongest_wish = maximum(rows[StepField::kWish]);
  plan.step = guard_value(rows, kGuards.front(), 0);
  plan.tokens_per_member.assign(tokens.begin(), tokens.end());
  plan.padded_tokens = maximum(rows[StepField::kPaddedTokens]);
  plan.micro_batches = common_micro_batches(tokens, rows[StepField::kMicroBatches]);
  plan.micro_batch_tokens = tokens_max / plan.micro_batches + (tokens_max % plan.micro_batches != 0 ? 1 : 0);
  plan.graph_mode = static_cast<GraphMode>(minimum(rows[StepField::kGraphMode]));
  plan.draining = strongest_wish >= static_cast<std::int32_t>(ControlWish::kDrain);
  plan.waiting_total = sum(rows[StepField::kWaiting]);
  plan.prefill_tokens_total = sum(rows[StepField::kPrefillTokens]);
  plan.kv_balance = balance(rows[StepField::kUsedKvBlocks]);
  plan.late_member = late_member(rows[StepField::kWaitedUs]);
  plan.requests_total = sum(rows[StepField::kRequests]);
  plan.action = decide_action(tokens_max > 0, plan.waiting_total > 0, rows[StepField::kWish]);
  return {};
}

}  // namespace lockstep::comm
