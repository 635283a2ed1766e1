#include "lockstep/microbatcher/stats.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include <fmt/format.h>

namespace lockstep {

namespace {

double to_ms(Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

/// The smallest sample that at least `fraction` of the samples do not exceed. Reorders `samples`.
Duration nearest_rank(std::vector<Duration>& samples, double fraction) {
  const auto rank = static_cast<std::size_t>(std::ceil(fraction * static_cast<double>(samples.size())));
  const auto nth = samples.begin() + static_cast<std::ptrdiff_t>(std::max<std::size_t>(rank, 1) - 1);
  std::nth_element(samples.begin(), nth, samples.end());
  return *nth;
}

}  // namespace

double BatchStats::avg_batch_size() const {
  return total_batches == 0 ? 0 : static_cast<double>(total_items) / static_cast<double>(total_batches);
}

double BatchStats::avg_wait_time_ms() const {
  return total_items == 0 ? 0 : total_wait_ms / static_cast<double>(total_items);
}

std::string BatchStats::to_json() const {
  return fmt::format(R"({{"total_items":{},"total_batches":{},"failures":{},"cancelled":{},"refused":{},"max_batch_size":{},"avg_batch_size":{},)"
                     R"("total_wait_ms":{},"avg_wait_time_ms":{},"wait_p50_ms":{},"wait_p99_ms":{}}})",
                     total_items, total_batches, failures, cancelled, refused, max_batch_size, avg_batch_size(), total_wait_ms, avg_wait_time_ms(), wait_p50_ms,
                     wait_p99_ms);
}

void BatchStatsRecorder::add_batch(std::size_t items) {
  ++totals_.total_batches;
  totals_.total_items += items;
  totals_.max_batch_size = std::max(totals_.max_batch_size, items);
}

BatchStats BatchStatsRecorder::snapshot() const {
  BatchStats result = totals_;
  result.total_wait_ms = to_ms(wait_total_);
  if (wait_count_ > 0) {
    std::vector<Duration> samples(waits_.begin(), waits_.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(wait_count_, kWaitsKept)));
    result.wait_p50_ms = to_ms(nearest_rank(samples, 0.50));
    result.wait_p99_ms = to_ms(nearest_rank(samples, 0.99));
  }
  return result;
}

}  // namespace lockstep
