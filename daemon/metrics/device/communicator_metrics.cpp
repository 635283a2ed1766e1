#include "daemon/metrics/device/communicator_metrics.hpp"

#include <cstdint>

namespace lockstep::daemon {

void CommunicatorMetrics::set_communicator(const comm::Communicator* communicator) {
  if (communicator == nullptr && communicator_ != nullptr) {
    last_ = communicator_->device_traffic();
  }
  communicator_ = communicator;
  if (communicator != nullptr) {
    transport_ = communicator->agreement_transport();
  }
}

prometheus::ClientMetric CommunicatorMetrics::labelled(const char* label, const std::string& value) const {
  prometheus::ClientMetric metric;
  for (const auto& [name, constant] : labels_) {
    metric.label.push_back({name, constant});
  }
  metric.label.push_back({label, value});
  return metric;
}

std::vector<prometheus::MetricFamily> CommunicatorMetrics::Collect() const {
  const comm::DeviceTraffic traffic = communicator_ == nullptr ? last_ : communicator_->device_traffic();
  prometheus::MetricFamily agreement{
      .name = "lockstep_agreement_transport_info",
      .help = "What carries the agreement's all-reduce: of GPUs' hosts and NCCL the faster one, measured at the start; always 1.",
      .type = prometheus::MetricType::Gauge,
      .metric = {labelled("transport", transport_)}};
  agreement.metric.front().gauge.value = 1;
  prometheus::MetricFamily bytes{
      .name = "lockstep_nccl_bytes_total",
      .help = "Bytes that NCCL was given to send to other ranks' GPUs and to receive from them, agreements included. 0 without NCCL.",
      .type = prometheus::MetricType::Counter,
      .metric = {labelled("direction", "sent"), labelled("direction", "received")}};
  bytes.metric.front().counter.value = static_cast<double>(traffic.sent_bytes);
  bytes.metric.back().counter.value = static_cast<double>(traffic.received_bytes);
  return {agreement, bytes};
}

}  // namespace lockstep::daemon
