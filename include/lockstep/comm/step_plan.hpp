// StepProposal, StepMatrix, decide() and StepPlan: how all ranks come to the same step.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"
#include "lockstep/forward_context.hpp"

namespace lockstep::comm {

/// What a member wants of the whole group. Ordered: the strongest wish of any member holds for all.
enum class ControlWish : std::int32_t { kNone = 0, kDrain = 1, kStop = 2 };

/// One member's column of the matrix, in plain types.
struct StepProposal {
  // Guards: must be equal on all members, or the group stops within this step.
  std::int64_t step = 0;
  std::int32_t epoch = 0;
  std::uint64_t config_hash = 0;
  // Work.
  std::int32_t tokens = 0;          ///< rows that this member computes in this step
  std::int32_t prefill_tokens = 0;  ///< of them, tokens of prompts
  std::int32_t requests = 0;        ///< requests with rows in this step
  std::int32_t padded_tokens = 0;   ///< size this member would pad to
  std::int32_t micro_batches = 1;   ///< how many this member would split into
  GraphMode graph_mode = GraphMode::kNone;
  // State.
  std::int32_t waiting = 0;  ///< requests accepted and not finished that have no rows in this step
  std::int32_t free_kv_blocks = 0;
  std::int32_t used_kv_blocks = 0;
  std::int32_t waited_us = 0;  ///< microseconds for which this member had nothing to do but wait for the others, in the last agreement that has ended
  ControlWish wish = ControlWish::kNone;
};

/// Rows of the matrix. 64-bit guards take two words. kChecksum covers the member's own other words, so a corrupted column is noticed even where no guard
/// differs.
enum class StepField : std::int32_t {
  kStepLow,
  kStepHigh,
  kEpoch,
  kConfigHashLow,
  kConfigHashHigh,
  kTokens,
  kPrefillTokens,
  kRequests,
  kPaddedTokens,
  kMicroBatches,
  kGraphMode,
  kWaiting,
  kFreeKvBlocks,
  kUsedKvBlocks,
  kWaitedUs,
  kWish,
  kChecksum,
  kCount
};
inline constexpr std::size_t kStepFieldCount = static_cast<std::size_t>(StepField::kCount);
[[nodiscard]] std::string_view step_field_name(StepField field);

/// int32[fields][members], row-major: each member fills its column, the sum over members is the matrix.
using StepMatrix = std::span<const std::int32_t>;

/// Writes `proposal` as column `member_index` of `matrix` ([kStepFieldCount * members]); the rest becomes zero.
void encode_proposal(const StepProposal& proposal, int member_index, int member_count, std::span<std::int32_t> matrix);

enum class StepAction : std::int32_t {
  kRun,    ///< compute: at least one member has rows
  kSleep,  ///< nobody has rows or anything waiting: sleep until woken
  kSpin,   ///< no rows, but something waits (for blocks to become free, for every member to have heard of a drain): agree again
  kStop,   ///< all leave after this step
};

/// The least time for which a late member must have made another one wait to be called late: an exchange itself takes some microseconds, for some longer than
/// for others.
inline constexpr std::int32_t kLateUs = 100;

/// What all members do next: equal on all of them.
struct StepPlan {
  StepAction action = StepAction::kSleep;
  std::int64_t step = 0;
  std::vector<std::int32_t> tokens_per_member;  ///< [members], rows
  std::int32_t padded_tokens = 0;               ///< maximum over members
  std::int32_t micro_batches = 1;               ///< the minimum over the members with rows, and at most the longest's rows
  std::int32_t micro_batch_tokens = 0;          ///< rows per micro-batch and member: ceil(max tokens / micro_batches); a short member's last chunks are empty
  GraphMode graph_mode = GraphMode::kNone;      ///< minimum over members
  bool draining = false;                        ///< someone wishes to drain or stop: nobody admits new requests
  std::int64_t waiting_total = 0;
  std::int64_t prefill_tokens_total = 0;
  double kv_balance = 1.0;          ///< mean over maximum of the members' used KV blocks; 1: even, or none is used
  int late_member = -1;             ///< who came last to the agreement before, and made another wait for kLateUs at least; -1: nobody
  std::int64_t requests_total = 0;  ///< with rows in this step
};

/// Pure and stateless: no I/O, clock, randomness or memory between calls; the same matrix gives the same plan, or the same error, everywhere.
/// The plan for step `step` of a matrix summed over `member_count` members. `plan` is reused: no allocation once its vector has grown.
/// Errors  kDiverged: naming the field, the members and their values; kInvalidArgument never.
/// Cost    O(fields × members).
[[nodiscard]] Status decide(StepMatrix matrix, int member_count, StepPlan& plan);

}  // namespace lockstep::comm
