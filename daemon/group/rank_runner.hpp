// RankRunner: what the step thread of a rank does, from joining the group to leaving it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "daemon/hooks.hpp"
#include "daemon/lifecycle/health.hpp"
#include "daemon/options/options.hpp"
#include "daemon/served_model/served_model.hpp"
#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

/// Borrowed; all outlive the runner.
struct RankParts {
  const DaemonOptions* options = nullptr;
  const DaemonHooks* hooks = nullptr;
  comm::LaunchInfo launch;
  int core_count = 1;  ///< this rank's share of the host's
  std::string secret;
  ServedModel* model = nullptr;
  boost::asio::io_context* io = nullptr;
  comm::StepProgress* progress = nullptr;
  ForwardTimingTracker* timing_tracker = nullptr;
  scheduler::OutputSink* sink = nullptr;
  scheduler::StepObserver* observer = nullptr;
};

/// Called on the step thread, in this order.
struct RankEvents {
  std::function<void(std::string_view phase, Duration duration)> on_phase;  ///< after each of kStartPhases but "check"
  /// Of several ranks: made, and what there is to say of it. It lives until before_farewell has returned.
  std::function<void(const comm::Communicator&, const std::string& note)> on_communicator;
  std::function<void(comm::PeerChannel&)> on_peers;   ///< all are connected
  std::function<void(device::Device&)> on_device;     ///< made; it lives as long as the runner
  std::function<void(scheduler::Engine&)> on_engine;  ///< made, not loaded
  std::function<void()> on_loaded;
  std::function<void()> before_farewell;  ///< the group has agreed to end: peers will go, and the engine. Returns when nobody uses them any more.
};

/// Ownership  owns communicator, peer channel and engine; the peer channel lives as long as the runner, which must outlive the io_context's run.
/// Threads    `run` once, on the step thread; `report` after it failed, there too.
class RankRunner {
 public:
  RankRunner(RankParts parts, RankEvents events);
  ~RankRunner();
  RankRunner(const RankRunner&) = delete;
  RankRunner& operator=(const RankRunner&) = delete;

  /// Success: the group has ended by agreement, and communicator and engine are gone. Failure: they are still there, as the backend may still write to their
  /// buffers; the process is to leave by _exit.
  [[nodiscard]] Status run();
  /// Tells the peers why this rank leaves; bounded.
  void report(const Error& error);

 private:
  [[nodiscard]] Status join_group();
  [[nodiscard]] Status make_communicator();
  [[nodiscard]] Status connect_peers(const Deadline& deadline);
  [[nodiscard]] Status make_engine();
  /// Of a wait that ran out, the ranks for which it waited.
  [[nodiscard]] Error name_the_late(Error error) const;
  void leave_group();

  RankParts parts_;
  RankEvents events_;
  std::unique_ptr<comm::PeerChannel> peers_;
  std::unique_ptr<comm::Communicator> communicator_;
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<scheduler::Engine> engine_;
};

}  // namespace lockstep::daemon
