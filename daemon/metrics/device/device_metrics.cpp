#include "daemon/metrics/device/device_metrics.hpp"

#include <array>
#include <string_view>
#include <utility>

namespace lockstep::daemon {

std::vector<prometheus::MetricFamily> DeviceMetrics::Collect() const {
  const device::DeviceUsage usage = device_ == nullptr ? device::DeviceUsage{} : device_->usage();
  std::vector<prometheus::MetricFamily> result;
  const auto add_family = [&](const char* name, const char* help, prometheus::MetricType type) {
    prometheus::MetricFamily& family = result.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
  };
  const auto add = [&](double value, std::string_view state = {}) {
    prometheus::MetricFamily& family = result.back();
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    for (const auto& [label, label_value] : labels_) {
      metric.label.push_back({label, label_value});
    }
    if (!state.empty()) {
      metric.label.push_back({"state", std::string(state)});
    }
    (family.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  };
  using Type = prometheus::MetricType;
  add_family("lockstep_device_memory_bytes",
             "Memory of the device: all of it, what this process has reserved, what is in use, and the most that was. 0 where it is the host's.", Type::Gauge);
  for (const auto& [state, bytes] : {std::pair{"total", usage.memory_total_bytes}, std::pair{"reserved", usage.memory_reserved_bytes},
                                     std::pair{"used", usage.memory_used_bytes}, std::pair{"used_max", usage.memory_used_max_bytes}}) {
    add(static_cast<double>(bytes), state);
  }
  add_family("lockstep_device_launches_total", "Kernels launched on the device, those in graphs too.", Type::Counter);
  add(static_cast<double>(usage.launches));
  add_family("lockstep_device_graph_launches_total", "Graphs launched on the device: each takes the place of its kernels' launches.", Type::Counter);
  add(static_cast<double>(usage.graph_launches));
  add_family("lockstep_device_host_waits_total", "Times that the host had to wait for the device.", Type::Counter);
  add(static_cast<double>(usage.host_waits));
  return result;
}

}  // namespace lockstep::daemon
