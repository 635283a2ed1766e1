#include "daemon/lifecycle/health.hpp"

#include <chrono>

#include <boost/json.hpp>

namespace lockstep::daemon {
namespace {

bool may_stand_still(comm::StepPhase phase) {
  return phase == comm::StepPhase::kSleeping || phase == comm::StepPhase::kStarting || phase == comm::StepPhase::kStopped;
}

boost::json::array to_array(const std::vector<int>& ranks) {
  boost::json::array array;
  for (const int rank : ranks) {
    array.push_back(rank);
  }
  return array;
}

}  // namespace

std::string_view life_state_name(LifeState state) {
  switch (state) {
    case LifeState::kInit:
      return "init";
    case LifeState::kLoading:
      return "loading";
    case LifeState::kWarming:
      return "warming";
    case LifeState::kReady:
      return "ready";
    case LifeState::kDraining:
      return "draining";
    case LifeState::kFaulted:
      return "faulted";
  }
  return "faulted";
}

void ProgressWatch::update(const comm::ProgressReport& report, TimePoint now) {
  if (!seen_ || report.ticks != report_.ticks) {
    changed_ = now;
    seen_ = true;
  }
  report_ = report;
}

Health judge_health(const HealthInput& input) {
  Health health;
  const double stall_seconds = std::chrono::duration<double>(input.stall_timeout).count();
  for (const comm::PeerState& peer : input.peers) {
    if (!peer.connected || peer.heartbeat_age_seconds > stall_seconds) {
      health.lost.push_back(peer.member);
    }
    const bool behind = peer.progress.step < input.progress.step || (peer.progress.step == input.progress.step && !comm::waits_for_peers(peer.progress.phase));
    if (comm::waits_for_peers(input.progress.phase) && behind) {
      health.not_arrived.push_back(peer.member);
    }
  }
  if (input.state == LifeState::kFaulted) {
    health.alive = false;
    health.status = health.lost.empty() ? "faulted" : "peer_lost";
  } else if (input.state != LifeState::kReady && input.state != LifeState::kDraining) {
    health.status = "loading";
  } else if (!health.lost.empty()) {
    health.alive = false;
    health.status = "peer_lost";
  } else if (input.since_progress > input.stall_timeout && !may_stand_still(input.progress.phase)) {
    health.alive = false;
    health.status = "stalled";
  } else if (input.state == LifeState::kDraining) {
    health.status = "draining";
  } else {
    health.ready = true;
  }
  return health;
}

std::string health_body(const Health& health, const HealthInput& input, int rank) {
  boost::json::object object;
  object["status"] = health.status;
  object["rank"] = rank;
  object["state"] = life_state_name(input.state);
  object["step"] = input.progress.step;
  object["phase"] = comm::step_phase_name(input.progress.phase);
  object["layer"] = input.progress.layer;
  object["seconds_since_progress"] = std::chrono::duration<double>(input.since_progress).count();
  object["lost"] = to_array(health.lost);
  object["not_arrived"] = to_array(health.not_arrived);
  return boost::json::serialize(object);
}

}  // namespace lockstep::daemon
