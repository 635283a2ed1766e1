// LifeMonitor: knows the rank's state, answers the probes, and tells the service manager and the metrics.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <spdlog/logger.h>

#include "daemon/http/exchange.hpp"
#include "daemon/lifecycle/health.hpp"
#include "daemon/lifecycle/service_notifier.hpp"
#include "daemon/metrics/metrics.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

struct LifeMonitorOptions {
  int rank = 0;
  int world_size = 1;
  Duration stall_timeout = std::chrono::seconds(10);
  Duration tick_interval = std::chrono::milliseconds(250);
};

/// Borrowed; all outlive the monitor.
struct LifeMonitorParts {
  boost::asio::io_context* io = nullptr;
  const comm::StepProgress* progress = nullptr;
  const ServiceNotifier* notifier = nullptr;
  Metrics* metrics = nullptr;
  spdlog::logger* logger = nullptr;
  std::function<void()> on_ready;  ///< once, when the engine has begun to run
};

/// Looks at atomics only, so its answers do not depend on what the step thread does. Only rank 0 talks to the service manager, for the group: its own health
/// says that no peer is lost, and as it waits for the slowest, that all make progress.
/// Threads  the Asio thread.
class LifeMonitor {
 public:
  [[nodiscard]] static std::unique_ptr<LifeMonitor> create(const LifeMonitorOptions& options, LifeMonitorParts parts);
  virtual ~LifeMonitor() = default;
  LifeMonitor(const LifeMonitor&) = delete;
  LifeMonitor& operator=(const LifeMonitor&) = delete;

  virtual void start() = 0;
  /// Ends the timers, so that the io_context can run out of work.
  virtual void stop() = 0;
  virtual void set_state(LifeState state) = 0;
  [[nodiscard]] virtual LifeState state() const = 0;
  /// From now on all peers are expected to be connected; null: no longer, for the group parts in peace.
  virtual void set_peers(const comm::PeerChannel* peers) = 0;
  /// The engine whose draining, running and open requests count; null: there is none any more.
  virtual void set_engine(const scheduler::Engine* engine) = 0;
  [[nodiscard]] virtual HttpResponse health_response() = 0;
  [[nodiscard]] virtual HttpResponse ready_response() = 0;
  /// Brings the metrics up to date that are looked at rather than counted.
  virtual void update_metrics() = 0;

 protected:
  LifeMonitor() = default;
};

}  // namespace lockstep::daemon
