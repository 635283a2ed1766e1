// ProcessMetrics: the process_* families that every Prometheus client has. Private to this folder.
#pragma once

#include <prometheus/collectable.h>

#include "daemon/metrics/atomic_table.hpp"

namespace lockstep::daemon {

/// Read from /proc/self when collected.      Threads  any.
class ProcessMetrics final : public prometheus::Collectable {
 public:
  explicit ProcessMetrics(LabelSet constant_labels) : labels_(std::move(constant_labels)) {}
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  LabelSet labels_;
};

}  // namespace lockstep::daemon
