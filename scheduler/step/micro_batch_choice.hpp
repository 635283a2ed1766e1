// MicroBatchChoice: whether this rank would split its next step, from what such steps took whole and split.
#pragma once

#include <array>
#include <cstdint>
#include <numeric>
#include <optional>
#include <unordered_map>

#include "lockstep/forward_context.hpp"
#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::scheduler {

/// What a rank proposes, and why.
struct MicroBatchWish {
  std::int32_t count = 1;
  MicroBatchReason reason = MicroBatchReason::kOption;
};

/// The part of --micro-batches auto that is a rank's own: its proposal. What is done is the agreement's to say, which takes the least that is proposed.
/// Which number is tried follows from the step's, equal on all ranks: else two ranks would never try the same one in the same step.
///   unknown shape      whole and split in turn, until there are as many steps as give kSamplesMin of each number where all ranks try; what other ranks keep
///                      from being tried then waits for a probe
///   nothing to hide    whole: where whole steps exchange, or compute, so little that hiding it all would gain less than kGain asks for
///   known shape        the fastest by the median, changed only for one that is kGain faster; every kProbePeriod steps one step of each, as any may change;
///                      of one that took kFar times as long, every kFarPeriod-th of these only
/// Threads  the engine's.      Cost  a look-up a step; the medians are taken after probes only. No allocation after construction.
class MicroBatchChoice {
 public:
  static constexpr std::uint64_t kSamplesMin = 4;
  static constexpr std::int64_t kProbePeriod = 63;
  static constexpr std::array<std::int32_t, 3> kCounts{1, 2, 4};
  static constexpr double kGain = 0.97;
  static constexpr double kFar = 1.5;
  static constexpr std::int64_t kFarPeriod = 8;

  /// For steps of up to rows_max rows.
  explicit MicroBatchChoice(std::int32_t rows_max);

  /// One of kCounts for a step of this shape; the step's number decides what is tried.
  [[nodiscard]] MicroBatchWish propose(const BatchDescriptor& shape, std::int64_t step) const;
  /// A step of this shape took that long with so many micro-batches, of which its exchanges took `exchange_ms`, hidden or not; nullopt: nobody knows, and
  /// splits are tried whatever there is to hide. Other numbers than kCounts, which steps of very few rows have, are left out.
  void record(const BatchDescriptor& shape, std::int32_t micro_batches, std::int64_t step, double duration_ms, std::optional<double> exchange_ms);

 private:
  struct Known {
    std::array<std::uint64_t, kCounts.size()> samples{};  ///< by kCounts
    std::array<bool, kCounts.size()> is_far{};            ///< by kCounts: kFar from the favourite, as of the last choice
    std::size_t favourite = 0;                            ///< index of kCounts
    double hideable_share = 1.0;                          ///< of whole steps: what would be gained if all exchange, or all else, were hidden
  };
  static constexpr std::int64_t kProbeInterval = kProbePeriod / static_cast<std::int64_t>(kCounts.size());
  [[nodiscard]] static bool is_new(const Known& known) {
    return std::accumulate(known.samples.begin(), known.samples.end(), std::uint64_t{0}) < kSamplesMin * kCounts.size();
  }
  [[nodiscard]] static bool is_probe(std::int64_t step) { return step % kProbeInterval == 0; }
  [[nodiscard]] static bool has_nothing_to_hide(const Known& known) { return known.samples.front() >= kSamplesMin && known.hideable_share < 1.0 - kGain; }
  [[nodiscard]] ForwardTimingTracker& timings(const BatchDescriptor& shape, std::size_t count) { return timings_[shape.uniform ? 1 : 0][count]; }
  void choose(const BatchDescriptor& shape, Known& known);

  std::unordered_map<BatchDescriptor, Known> known_;
  /// [decodes][by kCounts]: a tracker's keys are rows, so that what else makes a shape needs trackers of its own.
  std::array<std::array<ForwardTimingTracker, kCounts.size()>, 2> timings_;
};

}  // namespace lockstep::scheduler
