#include "daemon/metrics/forward/forward_metrics.hpp"

#include <string>

namespace lockstep::daemon {

std::vector<prometheus::MetricFamily> ForwardMetrics::Collect() const {
  constexpr double kSecondsPerMs = 1e-3;
  prometheus::MetricFamily family;
  family.name = "lockstep_forward_duration_seconds";
  family.help = "Forward passes, by this rank's rows padded to a power of two; 0: passes in which it had none. Quantiles of the last 256.";
  family.type = prometheus::MetricType::Summary;
  for (const ForwardTimingTracker::Stats& stats : tracker_ == nullptr ? std::vector<ForwardTimingTracker::Stats>() : tracker_->get_stats()) {
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    for (const auto& [label, value] : labels_) {
      metric.label.push_back({label, value});
    }
    metric.label.push_back({"batch_size", std::to_string(stats.batch_size)});
    metric.summary.sample_count = stats.count;
    metric.summary.sample_sum = stats.mean_ms * static_cast<double>(stats.count) * kSecondsPerMs;
    metric.summary.quantile = {{0.5, stats.p50_ms * kSecondsPerMs}, {0.99, stats.p99_ms * kSecondsPerMs}};
  }
  return {std::move(family)};
}

}  // namespace lockstep::daemon
