#include "scheduler/step/micro_batch_choice.hpp"

#include <algorithm>
#include <optional>

#include "lockstep/core/check.hpp"
#include "scheduler/step/step_cache.hpp"

namespace lockstep::scheduler {

MicroBatchChoice::MicroBatchChoice(std::int32_t rows_max) {
  const std::int32_t largest = step_shape(rows_max, false).num_tokens;
  for (const bool decodes : {false, true}) {
    for (std::int64_t rows = 1; rows <= largest; rows *= 2) {
      known_[step_shape(static_cast<std::int32_t>(rows), decodes)] = {};
    }
  }
}

std::int32_t MicroBatchChoice::propose(const BatchDescriptor& shape, std::int64_t step) const {
  const auto found = known_.find(shape);
  LOCKSTEP_CHECK(found != known_.end(), "no times are kept for {}", shape.key());
  const Known& known = found->second;
  if (std::ranges::any_of(known.samples, [](std::uint64_t samples) { return samples < kSamplesMin; })) {
    return static_cast<std::int32_t>(1 + step % 2);
  }
  if (is_probe(step)) {
    return step % kProbePeriod == 0 ? 1 : 2;
  }
  return known.favourite;
}

void MicroBatchChoice::record(const BatchDescriptor& shape, std::int32_t micro_batches, std::int64_t step, double duration_ms) {
  const auto found = known_.find(shape);
  LOCKSTEP_CHECK(found != known_.end() && micro_batches >= 1 && micro_batches <= 2, "a time of {} with {} micro-batches", shape.key(), micro_batches);
  Known& known = found->second;
  std::uint64_t& samples = known.samples[static_cast<std::size_t>(micro_batches - 1)];
  timings(shape, micro_batches).record(shape.num_tokens, duration_ms);
  ++samples;
  if (samples == kSamplesMin || is_probe(step)) {
    choose(shape, known);
  }
}

ForwardTimingTracker& MicroBatchChoice::timings(const BatchDescriptor& shape, std::int32_t micro_batches) {
  return timings_[shape.uniform ? 1 : 0][static_cast<std::size_t>(micro_batches - 1)];
}

void MicroBatchChoice::choose(const BatchDescriptor& shape, Known& known) {
  const std::int32_t other = 3 - known.favourite;
  const std::optional<ForwardTimingTracker::Stats> now = timings(shape, known.favourite).get_stats(shape.num_tokens);
  const std::optional<ForwardTimingTracker::Stats> then = timings(shape, other).get_stats(shape.num_tokens);
  if (now && then && now->count >= kSamplesMin && then->count >= kSamplesMin && then->p50_ms < kGain * now->p50_ms) {
    known.favourite = other;
  }
}

}  // namespace lockstep::scheduler
