// ForwardMetrics: lockstep_forward_duration_seconds, a summary by batch size. Private to daemon/metrics.
#pragma once

#include <prometheus/collectable.h>

#include "daemon/metrics/atomic_table.hpp"
#include "lockstep/forward_context.hpp"

namespace lockstep::daemon {

/// Read from the tracker when collected.      Ownership  borrows the tracker; null shows none.      Threads  any.
class ForwardMetrics final : public prometheus::Collectable {
 public:
  ForwardMetrics(LabelSet constant_labels, const ForwardTimingTracker* tracker) : labels_(std::move(constant_labels)), tracker_(tracker) {}
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  LabelSet labels_;
  const ForwardTimingTracker* tracker_;
};

}  // namespace lockstep::daemon
