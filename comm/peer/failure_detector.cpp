#include "comm/peer/failure_detector.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace lockstep::comm::peer {

namespace {

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

std::string place(const ProgressReport& progress) {
  if (progress.layer < 0) {
    return fmt::format("last seen at step {}", progress.step);
  }
  return fmt::format("last seen at step {}, layer {}", progress.step, progress.layer);
}

}  // namespace

FailureDetector::FailureDetector(GroupView view, Duration heartbeat_interval, Duration stall_timeout, TimePoint now)
    : view_(std::move(view)),
      heartbeat_interval_(heartbeat_interval),
      stall_timeout_(stall_timeout),
      last_progress_(now.time_since_epoch().count()),
      peers_(view_.members.size()),
      last_round_(now) {}

void FailureDetector::on_connected(int member, TimePoint now) {
  const std::lock_guard lock(mutex_);
  Peer& peer = peers_[static_cast<std::size_t>(member)];
  peer.connected = true;
  peer.last_heard = now;
  peer.silent = Duration::zero();
  last_progress_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
}

void FailureDetector::on_heartbeat(int member, const ProgressReport& report, TimePoint now) {
  const std::lock_guard lock(mutex_);
  Peer& peer = peers_[static_cast<std::size_t>(member)];
  if (report.ticks != peer.progress.ticks) {
    last_progress_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  }
  peer.progress = report;
  peer.last_heard = now;
  peer.silent = Duration::zero();
}

void FailureDetector::on_goodbye(int member) {
  const std::lock_guard lock(mutex_);
  peers_[static_cast<std::size_t>(member)].said_goodbye = true;
}

void FailureDetector::on_closed(int member, const std::string& cause) {
  const std::lock_guard lock(mutex_);
  Peer& peer = peers_[static_cast<std::size_t>(member)];
  peer.connected = false;
  if (!peer.said_goodbye && !leaving_) {
    fail_locked({ErrorCode::kPeerLost, fmt::format("rank {}: {}; {}", rank_of(member), cause, place(peer.progress)), rank_of(member)});
  }
}

void FailureDetector::on_report(int member, const FailureFrame& report) {
  const std::lock_guard lock(mutex_);
  // What made the peer leave is for us the loss of a peer, unless the group disagrees about the step.
  const ErrorCode code = report.code == ErrorCode::kDiverged ? ErrorCode::kDiverged : ErrorCode::kPeerLost;
  fail_locked({code, fmt::format("rank {} reported: {}", rank_of(member), report.message), report.rank.value_or(rank_of(member))});
}

void FailureDetector::on_round(TimePoint now) {
  const std::lock_guard lock(mutex_);
  const Duration counted = std::min<Duration>(now - last_round_, 2 * heartbeat_interval_);
  last_round_ = now;
  if (leaving_) {
    return;
  }
  for (int member = 0; member < view_.size(); ++member) {
    Peer& peer = peers_[static_cast<std::size_t>(member)];
    if (!peer.connected || peer.said_goodbye) {
      continue;
    }
    peer.silent += counted;
    if (peer.silent > stall_timeout_) {
      fail_locked({ErrorCode::kPeerLost,
                   fmt::format("rank {}: no heartbeat for {:.1f} s (it is stopped, or the network to it is cut); {}", rank_of(member), seconds(peer.silent),
                               place(peer.progress)),
                   rank_of(member)});
    }
  }
}

void FailureDetector::leave() {
  const std::lock_guard lock(mutex_);
  leaving_ = true;
}

void FailureDetector::fail_locked(Error error) {
  if (failed_.load(std::memory_order_relaxed)) {
    return;
  }
  error_ = std::move(error);
  failed_.store(true, std::memory_order_release);
}

Status FailureDetector::failure() const {
  if (!failed_.load(std::memory_order_acquire)) {
    return {};
  }
  // Written once, before the flag: no lock is needed to copy it.
  return error_;
}

TimePoint FailureDetector::last_progress() const {
  return TimePoint(TimePoint::duration(last_progress_.load(std::memory_order_relaxed)));
}

std::vector<PeerState> FailureDetector::states(TimePoint now) const {
  const std::lock_guard lock(mutex_);
  std::vector<PeerState> states;
  for (int member = 0; member < view_.size(); ++member) {
    if (member == view_.my_index) {
      continue;
    }
    const Peer& peer = peers_[static_cast<std::size_t>(member)];
    PeerState state{.member = member, .connected = peer.connected, .progress = peer.progress};
    if (peer.last_heard != TimePoint{}) {
      state.heartbeat_age_seconds = seconds(now - peer.last_heard);
    }
    states.push_back(state);
  }
  return states;
}

bool FailureDetector::connected(int member) const {
  const std::lock_guard lock(mutex_);
  return peers_[static_cast<std::size_t>(member)].connected;
}

}  // namespace lockstep::comm::peer
