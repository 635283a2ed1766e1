// MicroBatchChoice: whether this rank would split its next step, from what such steps took whole and split.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>

#include "lockstep/forward_context.hpp"

namespace lockstep::scheduler {

/// The part of --micro-batches auto that is a rank's own: its proposal. What is done is the agreement's to say, which takes the least that is proposed.
/// Which of the two is tried follows from the step's number, equal on all ranks: else two ranks would never try the same one in the same step.
///   unknown shape   whole and split in turn, until there are kSamplesMin of each
///   known shape     the faster by the median, changed only for one that is kGain faster; every kProbePeriod steps one step of each kind, as either may change
/// Threads  the engine's.      Cost  a look-up a step; the medians are taken after probes only. No allocation after construction.
class MicroBatchChoice {
 public:
  static constexpr std::uint64_t kSamplesMin = 4;
  static constexpr std::int64_t kProbePeriod = 64;
  static constexpr double kGain = 0.97;

  /// For steps of up to rows_max rows.
  explicit MicroBatchChoice(std::int32_t rows_max);

  /// 1 or 2 micro-batches for a step of this shape; its number decides what is tried.
  [[nodiscard]] std::int32_t propose(const BatchDescriptor& shape, std::int64_t step) const;
  /// A step of this shape took that long with so many micro-batches.
  void record(const BatchDescriptor& shape, std::int32_t micro_batches, std::int64_t step, double duration_ms);

 private:
  struct Known {
    std::array<std::uint64_t, 2> samples{};  ///< by micro-batches - 1
    std::int32_t favourite = 1;
  };
  [[nodiscard]] static bool is_probe(std::int64_t step) { return step % (kProbePeriod / 2) == 0; }
  [[nodiscard]] ForwardTimingTracker& timings(const BatchDescriptor& shape, std::int32_t micro_batches);
  void choose(const BatchDescriptor& shape, Known& known);

  std::unordered_map<BatchDescriptor, Known> known_;
  /// [decodes][micro-batches - 1]: a tracker's keys are rows, so that what else makes a shape needs trackers of its own.
  std::array<std::array<ForwardTimingTracker, 2>, 2> timings_;
};

}  // namespace lockstep::scheduler
