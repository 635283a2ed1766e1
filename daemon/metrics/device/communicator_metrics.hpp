// CommunicatorMetrics: what carries agreements, and what devices send each other. Private to this folder.
#pragma once

#include <string>
#include <utility>

#include <prometheus/collectable.h>

#include "daemon/metrics/atomic_table.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::daemon {

/// Asked when collected. Until there is a communicator, agreements are `transport`'s and nothing has been sent.      Threads  the Asio thread.
class CommunicatorMetrics final : public prometheus::Collectable {
 public:
  CommunicatorMetrics(LabelSet constant_labels, std::string transport) : labels_(std::move(constant_labels)), transport_(std::move(transport)) {}
  /// Null: what was counted so far stays.
  void set_communicator(const comm::Communicator* communicator);
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  [[nodiscard]] prometheus::ClientMetric labelled(const char* label, const std::string& value) const;

  LabelSet labels_;
  std::string transport_;
  const comm::Communicator* communicator_ = nullptr;
  comm::DeviceTraffic last_{};
};

}  // namespace lockstep::daemon
