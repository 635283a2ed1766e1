// Health: what /health, /ready and the watchdog say of a rank. Pure, so that its truth table is a test.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/comm/step_progress.hpp"
#include "lockstep/core/deadline.hpp"

namespace lockstep::daemon {

/// How far a rank has come. The names are lockstep_up_state's.
enum class LifeState { kInit, kLoading, kWarming, kReady, kDraining, kFaulted };
[[nodiscard]] std::string_view life_state_name(LifeState state);

/// Remembers when a rank's step thread was last seen to move.      Threads  one.
class ProgressWatch {
 public:
  void update(const comm::ProgressReport& report, TimePoint now);
  [[nodiscard]] const comm::ProgressReport& report() const { return report_; }
  [[nodiscard]] Duration since_progress(TimePoint now) const { return now - changed_; }

 private:
  comm::ProgressReport report_{};
  TimePoint changed_{};
  bool seen_ = false;
};

struct HealthInput {
  LifeState state = LifeState::kInit;
  comm::ProgressReport progress{};
  Duration since_progress{};
  Duration stall_timeout = std::chrono::seconds(10);
  std::vector<comm::PeerState> peers{};  ///< empty until all were connected, and at world 1
};

struct Health {
  bool alive = true;               ///< /health: 200
  bool ready = false;              ///< /ready: 200
  std::string_view status = "ok";  ///< ok, loading, draining, stalled, peer_lost, faulted
  std::vector<int> lost{};         ///< peers without connection or heartbeat
  std::vector<int> not_arrived{};  ///< while this rank waits: peers that are behind it
};

/// Loading and draining are healthy, and not ready. A step thread that does not move for stall_timeout is neither, unless it sleeps, starts, or leaves.
[[nodiscard]] Health judge_health(const HealthInput& input);

/// {"status", "rank", "state", "step", "phase", "layer", "seconds_since_progress", "lost", "not_arrived"}
[[nodiscard]] std::string health_body(const Health& health, const HealthInput& input, int rank);

}  // namespace lockstep::daemon
