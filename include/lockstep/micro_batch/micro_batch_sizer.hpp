// MicroBatchSizer: chooses the size of the next micro-batch from the time of the last ones and from memory pressure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "lockstep/core/deadline.hpp"

namespace lockstep {

/// Memory in use as a share of what there is: 0 is empty, 1 is full. Called once per micro-batch, by one thread at a time; must not throw.
using MemoryProbe = std::function<double()>;

/// This process's resident memory over its limit: the smallest memory.max of its cgroups, or else the machine's memory. Reads the limit once, at creation.
/// Cost    one read of /proc per millisecond at most, no allocation; 0 where /proc cannot be read.
[[nodiscard]] MemoryProbe host_memory_probe();

struct MicroBatchSizerOptions {
  std::int32_t initial_micro_batch = 8;
  std::int32_t min_micro_batch = 1;
  std::int32_t max_micro_batch = 64;
  double target_time_ms = 10;
  double memory_threshold = 0.8;  ///< 0 to 1
};

/// The adaptive controller. Sizes are steps of a ladder: the initial size, doubled and halved, within the limits, which are steps too.
/// Over 1.5 times the target the size falls, under half of it the size rises: a band wider than one step, so that a step into it does not lead out of it again.
///   rise     on the first fast sample: what disturbs a measurement makes it slower, not faster. Two steps at most, and never to a step known to be bad.
///   fall     on two slow samples, or on one that takes three times the target; as many steps as the time asks for.
///   bad      a step that took too long or hit the memory limit is not tried again until the step below it has become much cheaper: this is what settles.
///            One that took too long is also tried again after 100 samples on the step below, then after 200, 400 and so on.
///   useless  where a smaller size does not take less time (fixed cost above the target), the controller goes back to the larger one and stays.
/// At or above the memory threshold each observation halves the size, whatever the time.
/// Threads  one at a time.      Cost  no allocation after construction.
class MicroBatchSizer {
 public:
  /// Errors  throws std::invalid_argument: initial_micro_batch or min_micro_batch < 1, min > max, target_time_ms or memory_threshold out of range.
  explicit MicroBatchSizer(const MicroBatchSizerOptions& options);

  /// Rows of the next micro-batch.
  [[nodiscard]] std::int32_t size() const { return ladder_[level_]; }
  /// One micro-batch of `rows` rows took `duration_ms` at this memory pressure. The time of one with another number of rows than `size()` (the rest of a
  /// batch, or one that was under way at a change) says nothing about a step: of it only the memory pressure counts.
  void observe(std::int32_t rows, double duration_ms, double memory_pressure);
  /// The steps, ascending.
  [[nodiscard]] const std::vector<std::int32_t>& ladder() const { return ladder_; }

 private:
  static constexpr std::size_t kWindow = 5;
  /// What made a step bad, as seen then: the block ends when the present is well below it.
  struct Block {
    std::size_t level = 0;
    std::optional<double> reference{};  ///< time or pressure of the level below, once known
    std::size_t seen = 0;               ///< samples at the level below
  };

  void adapt_to_time();
  void fall(double time_ms);
  void rise(double time_ms, std::size_t highest);
  void move_to(std::size_t level);
  [[nodiscard]] double median_ms() const;
  void refresh(std::optional<Block>& block, double now) const;

  double target_ms_;
  double memory_threshold_;
  std::vector<std::int32_t> ladder_;
  std::size_t level_ = 0;
  std::array<double, kWindow> window_{};  ///< times at this level, a ring
  std::size_t samples_ = 0;               ///< at this level
  std::optional<Block> slow_;             ///< this level and above take too long
  std::optional<Block> full_;             ///< this level and above use too much memory
  std::size_t retry_after_ = 100;         ///< samples, for slow_
  std::optional<std::size_t> rose_from_;  ///< the last move was up from here: it was good there
  std::optional<std::size_t> floor_;      ///< smaller than this level does not help
  /// The last fall: from where, and how long it took there.
  std::optional<std::size_t> fell_from_;
  double fell_from_ms_ = 0;
};

}  // namespace lockstep
