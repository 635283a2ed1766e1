// DeviceMetrics: what the device holds and has done. Private to this folder.
#pragma once

#include <prometheus/collectable.h>

#include "daemon/metrics/atomic_table.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::daemon {

/// Asked when collected; zeros until there is a device, and for one whose memory is the host's.      Threads  the Asio thread.
class DeviceMetrics final : public prometheus::Collectable {
 public:
  explicit DeviceMetrics(LabelSet constant_labels) : labels_(std::move(constant_labels)) {}
  void set_device(const device::Device* device) { device_ = device; }
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  LabelSet labels_;
  const device::Device* device_ = nullptr;
};

}  // namespace lockstep::daemon
