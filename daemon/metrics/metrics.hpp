// Metrics: everything behind GET /metrics.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/server.hpp"
#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/forward_context.hpp"
#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::comm {
class Communicator;
}
namespace lockstep::device {
class Device;
}

namespace lockstep::daemon {

struct MetricsOptions {
  int rank = 0;
  int world_size = 1;
  std::string version;
  std::string model;
  std::string device;
  std::string load_format;
  std::string transport;                                  ///< shown until set_communicator
  std::string micro_batches = "1";                        ///< the option's value
  const ForwardTimingTracker* forward_timings = nullptr;  ///< borrowed; null: none are shown
};

/// The states of lockstep_up_state and the phases of lockstep_startup_phase_seconds.
inline constexpr std::string_view kUpStates[] = {"init", "loading", "warming", "ready", "draining", "faulted"};
inline constexpr std::string_view kStartPhases[] = {"check", "comm", "peers", "load", "warmup"};

/// Ownership  owns all series. Every label set but HTTP's exists from the start, so that absent never means zero.
/// Threads    step_observer() is the step thread's; all else the Asio thread's.
class Metrics {
 public:
  [[nodiscard]] static std::unique_ptr<Metrics> create(const MetricsOptions& options);
  virtual ~Metrics() = default;
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  [[nodiscard]] virtual scheduler::StepObserver& step_observer() = 0;
  [[nodiscard]] virtual HttpObserver& http_observer() = 0;
  /// Creates the HTTP series of these routes.
  virtual void add_routes(std::span<const Route> routes) = 0;
  virtual void set_up_state(std::string_view state) = 0;
  virtual void set_start_phase(std::string_view phase, Duration duration) = 0;
  virtual void set_peer(const comm::PeerState& peer) = 0;
  virtual void set_drain_remaining(std::size_t requests) = 0;
  virtual void count_watchdog_ping() = 0;
  /// From now on the device's numbers are shown. Borrowed.
  virtual void set_device(const device::Device& device) = 0;
  /// From now on what it carries is shown, and what carries agreements. Borrowed; null: it goes, and its last numbers stay.
  virtual void set_communicator(const comm::Communicator* communicator) = 0;

  /// The exposition format 0.0.4.
  [[nodiscard]] virtual std::string text() const = 0;
  [[nodiscard]] virtual std::vector<std::string> family_names() const = 0;

 protected:
  Metrics() = default;
};

}  // namespace lockstep::daemon
