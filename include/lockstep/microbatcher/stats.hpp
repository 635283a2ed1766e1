// BatchStats: what a microbatcher did so far. Use through lockstep/microbatcher.hpp.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "lockstep/core/deadline.hpp"

namespace lockstep {

/// A snapshot. Items are counted when they leave in a batch; an item's wait is the time from its submit until then. With
/// dispatch_when_idle, where 4 items wait already, up to 4 neighbours share the time of the first of them.      Threads  a value.
struct BatchStats {
  std::uint64_t total_items = 0;
  std::uint64_t total_batches = 0;
  std::uint64_t failures = 0;      ///< items that ended with an error of the batch function or of its result count
  std::uint64_t cancelled = 0;     ///< items ended by their submitter, by destruction, before or in a batch
  std::uint64_t refused = 0;       ///< submits that were not accepted: full or stopped
  std::size_t max_batch_size = 0;  ///< items in the largest batch so far
  double total_wait_ms = 0;
  double wait_p50_ms = 0;  ///< over the last BatchStatsRecorder::kWaitsKept items
  double wait_p99_ms = 0;

  [[nodiscard]] double avg_batch_size() const;    ///< items; 0 without batches
  [[nodiscard]] double avg_wait_time_ms() const;  ///< 0 without items
  /// One JSON object: the members and the two averages under their names here.
  [[nodiscard]] std::string to_json() const;
};

/// Collects BatchStats in bounded memory.      Threads  one at a time.      Cost  no allocation but in `snapshot`.
class BatchStatsRecorder {
 public:
  static constexpr std::size_t kWaitsKept = 1024;

  void add_batch(std::size_t items);
  void add_wait(Duration wait) {
    wait_total_ += wait;
    waits_[wait_count_++ % kWaitsKept] = wait;
  }
  void add_failures(std::size_t items) { totals_.failures += items; }
  void add_cancelled(std::size_t items) { totals_.cancelled += items; }
  void add_refused() { ++totals_.refused; }
  /// Percentiles are by nearest rank.
  [[nodiscard]] BatchStats snapshot() const;

 private:
  BatchStats totals_;
  Duration wait_total_{};
  std::uint64_t wait_count_ = 0;
  std::array<Duration, kWaitsKept> waits_{};  // a ring
};

}  // namespace lockstep
