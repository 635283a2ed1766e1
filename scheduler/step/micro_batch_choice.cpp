#include "scheduler/step/micro_batch_choice.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "lockstep/core/check.hpp"
#include "scheduler/step/step_cache.hpp"

namespace lockstep::scheduler {

namespace {
/// How much of the largest share a whole step leaves: it takes some tens of steps to be forgotten.
constexpr double kShareKept = 0.95;
}  // namespace

MicroBatchChoice::MicroBatchChoice(std::int32_t rows_max) {
  const std::int32_t largest = step_shape(rows_max, false).num_tokens;
  for (const bool decodes : {false, true}) {
    for (std::int64_t rows = 1; rows <= largest; rows *= 2) {
      known_[step_shape(static_cast<std::int32_t>(rows), decodes)] = {};
    }
  }
}

MicroBatchWish MicroBatchChoice::propose(const BatchDescriptor& shape, std::int64_t step) const {
  const auto found = known_.find(shape);
  LOCKSTEP_CHECK(found != known_.end(), "no times are kept for {}", shape.key());
  const Known& known = found->second;
  if (has_nothing_to_hide(known)) {
    return {.count = 1, .reason = MicroBatchReason::kMeasured};
  }
  constexpr auto kCountTotal = static_cast<std::int64_t>(kCounts.size());
  if (is_new(known)) {
    return {.count = kCounts[static_cast<std::size_t>(step % kCountTotal)], .reason = MicroBatchReason::kTrial};
  }
  const MicroBatchWish best{.count = kCounts[known.favourite], .reason = MicroBatchReason::kMeasured};
  if (!is_probe(step)) {
    return best;
  }
  const std::int64_t probe = step / kProbeInterval;
  const auto tried = static_cast<std::size_t>(probe % kCountTotal);
  // The same rounds on all ranks, so that they still try it in the same step. When the favourite becomes slow, what was far is so no more.
  const bool spared = known.is_far[tried] && probe / kCountTotal % kFarPeriod != 0;
  return spared ? best : MicroBatchWish{.count = kCounts[tried], .reason = MicroBatchReason::kTrial};
}

void MicroBatchChoice::record(const BatchDescriptor& shape, std::int32_t micro_batches, std::int64_t step, double duration_ms,
                              std::optional<double> exchange_ms) {
  const auto found = known_.find(shape);
  LOCKSTEP_CHECK(found != known_.end(), "no times are kept for {}", shape.key());
  const auto counted = std::ranges::find(kCounts, micro_batches);
  if (counted == kCounts.end()) {
    return;
  }
  const auto count = static_cast<std::size_t>(counted - kCounts.begin());
  Known& known = found->second;
  if (micro_batches == 1 && duration_ms > 0 && exchange_ms) {
    // The largest of some: one quiet step must not end the trials for good, and whole steps go on being measured.
    const double share = std::min(*exchange_ms, duration_ms - *exchange_ms) / duration_ms;
    known.hideable_share = known.samples.front() == 0 ? share : std::max(share, known.hideable_share * kShareKept);
  }
  const bool was_new = is_new(known);
  timings(shape, count).record(shape.num_tokens, duration_ms);
  ++known.samples[count];
  if (was_new || is_probe(step)) {
    choose(shape, known);
  }
}

void MicroBatchChoice::choose(const BatchDescriptor& shape, Known& known) {
  const auto median = [&](std::size_t count) {
    const std::optional<ForwardTimingTracker::Stats> stats = timings(shape, count).get_stats(shape.num_tokens);
    return stats && stats->count >= kSamplesMin ? stats->p50_ms : std::numeric_limits<double>::infinity();
  };
  for (std::size_t count = 0; count < kCounts.size(); ++count) {
    if (median(count) < kGain * median(known.favourite)) {
      known.favourite = count;
    }
  }
  for (std::size_t count = 0; count < kCounts.size(); ++count) {
    const double ms = median(count);
    known.is_far[count] = std::isfinite(ms) && ms > kFar * median(known.favourite);
  }
}

}  // namespace lockstep::scheduler
