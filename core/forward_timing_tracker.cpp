#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>

#include "lockstep/forward_context.hpp"

namespace lockstep {

namespace {

/// What is kept of one batch size. The ring holds the newest samples; the rest covers all since `clear`.
struct SizeRecord {
  std::int32_t batch_size = 0;
  std::uint64_t count = 0;
  double sum_ms = 0;
  double min_ms = std::numeric_limits<double>::infinity();
  double max_ms = -std::numeric_limits<double>::infinity();
  std::array<double, ForwardTimingTracker::kSamplesPerSize> ring_ms{};

  void add(double duration_ms) {
    ring_ms[count % ring_ms.size()] = duration_ms;
    ++count;
    sum_ms += duration_ms;
    min_ms = std::min(min_ms, duration_ms);
    max_ms = std::max(max_ms, duration_ms);
  }
};

/// Linear interpolation between the two neighbours, as numpy does by default. Reorders `samples`.
double percentile(std::span<double> samples, double fraction) {
  const double position = fraction * static_cast<double>(samples.size() - 1);
  const auto lower = static_cast<std::size_t>(position);
  const auto nth = samples.begin() + static_cast<std::ptrdiff_t>(lower);
  std::nth_element(samples.begin(), nth, samples.end());
  const double below = *nth;
  if (lower + 1 == samples.size()) {
    return below;
  }
  const double above = *std::min_element(nth + 1, samples.end());
  return below + (above - below) * (position - static_cast<double>(lower));
}

ForwardTimingTracker::Stats summarize(SizeRecord& record) {
  const std::span<double> samples(record.ring_ms.data(), std::min<std::size_t>(record.count, record.ring_ms.size()));
  return {.batch_size = record.batch_size,
          .count = record.count,
          .mean_ms = record.sum_ms / static_cast<double>(record.count),
          .p50_ms = percentile(samples, 0.50),
          .p99_ms = percentile(samples, 0.99),
          .min_ms = record.min_ms,
          .max_ms = record.max_ms};
}

}  // namespace

/// All memory is here from the start: recording never allocates. A mutex, not atomics: uncontended it costs 20 ns, and a sample's five fields stay consistent.
struct ForwardTimingTracker::State {
  State(Duration interval, const Clock& time) : log_interval(interval), clock(&time), last_log(time.now()) {}

  /// Sizes map to records by open addressing over twice as many slots, so that a probe is short and always ends.
  static constexpr std::size_t kSlots = 2 * kMaxSizes;
  static constexpr std::int16_t kFree = -1;

  SizeRecord& find(std::int32_t batch_size) {
    // Fibonacci hashing: neighbouring sizes land far apart.
    std::size_t slot = (static_cast<std::uint32_t>(batch_size) * 0x9e3779b9U) >> 25U;
    static_assert(kSlots == 1U << 7U, "the shift above keeps seven bits");
    while (slots[slot] != kFree && records[static_cast<std::size_t>(slots[slot])].batch_size != batch_size) {
      slot = (slot + 1) % kSlots;
    }
    if (slots[slot] == kFree) {
      if (used == kMaxSizes) {
        return overflow(batch_size);
      }
      slots[slot] = static_cast<std::int16_t>(used);
      records[used] = {};
      records[used].batch_size = batch_size;
      ++used;
    }
    return records[static_cast<std::size_t>(slots[slot])];
  }

  /// The record that was made last is shared by its own size and all that came too late; it is listed under the largest of them.
  SizeRecord& overflow(std::int32_t batch_size) {
    SizeRecord& shared = records.back();
    overflow_size = std::max(std::max(overflow_size, shared.batch_size), batch_size);
    return shared;
  }

  const Duration log_interval;
  const Clock* const clock;
  mutable std::mutex mutex;
  TimePoint last_log;
  std::size_t used = 0;
  std::int32_t overflow_size = std::numeric_limits<std::int32_t>::min();
  std::array<std::int16_t, kSlots> slots = [] {
    std::array<std::int16_t, kSlots> all{};
    all.fill(kFree);
    return all;
  }();
  std::array<SizeRecord, kMaxSizes> records{};
};

ForwardTimingTracker::ForwardTimingTracker(Duration log_interval, const Clock& clock) : state_(std::make_unique<State>(log_interval, clock)) {}

ForwardTimingTracker::~ForwardTimingTracker() = default;

void ForwardTimingTracker::record(std::int32_t batch_size, double duration_ms) {
  if (!std::isfinite(duration_ms)) {
    return;  // a NaN has no order: one would spoil every percentile after it
  }
  const std::lock_guard lock(state_->mutex);
  state_->find(batch_size).add(duration_ms);
}

std::vector<ForwardTimingTracker::Stats> ForwardTimingTracker::get_stats() const {
  std::vector<Stats> result;
  result.reserve(kMaxSizes);
  SizeRecord copy;
  for (std::size_t i = 0; i < kMaxSizes; ++i) {
    {
      // One record at a time: the step thread never waits for a whole table to be copied, and not at all for the percentiles.
      const std::lock_guard lock(state_->mutex);
      if (i >= state_->used) {
        break;
      }
      copy = state_->records[i];
      if (i + 1 == kMaxSizes) {
        copy.batch_size = std::max(copy.batch_size, state_->overflow_size);
      }
    }
    if (copy.count > 0) {
      result.push_back(summarize(copy));
    }
  }
  std::ranges::sort(result, {}, &Stats::batch_size);
  return result;
}

std::optional<ForwardTimingTracker::Stats> ForwardTimingTracker::get_stats(std::int32_t batch_size) const {
  SizeRecord copy;
  {
    const std::lock_guard lock(state_->mutex);
    const auto known = std::span(state_->records).first(state_->used);
    const auto found = std::ranges::find(known, batch_size, &SizeRecord::batch_size);
    if (found == known.end()) {
      return std::nullopt;
    }
    copy = *found;
  }
  return copy.count > 0 ? std::optional(summarize(copy)) : std::nullopt;
}

bool ForwardTimingTracker::should_log() {
  const std::lock_guard lock(state_->mutex);
  const TimePoint now = state_->clock->now();
  if (now - state_->last_log < state_->log_interval) {
    return false;
  }
  state_->last_log = now;
  return true;
}

void ForwardTimingTracker::clear() {
  const std::lock_guard lock(state_->mutex);
  state_->used = 0;
  state_->overflow_size = std::numeric_limits<std::int32_t>::min();
  state_->slots.fill(State::kFree);
}

ForwardTimingTracker& get_timing_tracker() {
  if (is_forward_context_available() && get_forward_context().timing_tracker != nullptr) {
    return *get_forward_context().timing_tracker;
  }
  // The one global of lockstep: the seed promises a tracker where no context is set. It is safe to share, and the daemon sets one for each step.
  // Never destroyed: threads and destructors of statics may still record while the process ends.
  // NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables)
  static auto* const process_wide = new ForwardTimingTracker;
  return *process_wide;
}

}  // namespace lockstep
