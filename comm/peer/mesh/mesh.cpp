#include "comm/peer/mesh/mesh.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include <fmt/format.h>

namespace lockstep::comm::peer {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

/// How often `flush` looks at its deadline at least, whatever it says itself.
constexpr Duration kWaitSliceMax = std::chrono::milliseconds(50);

TimePoint now() {
  return SteadyClock::instance().now();
}

}  // namespace

Mesh::Mesh(asio::io_context& io, const GroupView& view, const StepProgress& progress, PeerChannelOptions options)
    : view_(view),
      progress_(progress),
      options_(std::move(options)),
      detector_(view, options_.heartbeat_interval, options_.stall_timeout, now()),
      strand_(asio::make_strand(io)),
      acceptor_(strand_),
      accept_timer_(strand_),
      round_timer_(strand_),
      connections_(view.members.size()),
      clocks_(view.members.size()),
      reports_timer_(strand_),
      kept_wakes_(view.members.size()),
      obstacles_(view.members.size()) {}

void Mesh::start() {
  post([](Mesh& mesh) {
    mesh.accept_next();
    mesh.round_timer_.expires_after(mesh.options_.heartbeat_interval);
    mesh.wait_round();
  });
}

void Mesh::shut_down() {
  set_wake_receiver(nullptr);
  over_ = true;
  error_code ignored;
  acceptor_.close(ignored);
  accept_timer_.cancel();
  round_timer_.cancel();
  reports_timer_.cancel();
  reports_.reset();
  reports_done_ = nullptr;
  for (const auto& handshake : std::exchange(handshakes_, {})) {
    handshake->stop();
  }
  for (const auto& connection : connections_) {
    if (connection) {
      connection->close();
    }
  }
}

void Mesh::broadcast_wake(const WakeFrame& wake) {
  {
    const std::lock_guard lock(mutex_);
    const bool posted = pending_wake_.has_value();
    if (!posted || std::tie(pending_wake_->epoch, pending_wake_->step) < std::tie(wake.epoch, wake.step)) {
      pending_wake_ = wake;
    }
    if (posted) {
      return;
    }
  }
  post([](Mesh& mesh) {
    std::unique_lock lock(mesh.mutex_);
    mesh.said_.wake = std::exchange(mesh.pending_wake_, std::nullopt);
    lock.unlock();
    mesh.send_all(*mesh.said_.wake);
  });
}

void Mesh::set_wake_receiver(WakeReceiver* receiver) {
  {
    const std::lock_guard lock(receiver_mutex_);
    receiver_ = receiver;
  }
  post([](Mesh& mesh) {
    const std::lock_guard lock(mesh.receiver_mutex_);
    mesh.deliver_kept_locked();
  });
}

void Mesh::report_failure(const Error& error) {
  post([frame = FailureFrame{.code = error.code, .rank = error.rank, .message = error.message.substr(0, kFailureMessageBytesMax)}](Mesh& mesh) {
    mesh.said_.failure = frame;
    mesh.send_all(frame);
  });
}

void Mesh::say_goodbye() {
  detector_.leave();
  post([](Mesh& mesh) {
    mesh.said_.goodbye = GoodbyeFrame{};
    mesh.send_all(GoodbyeFrame{});
  });
}

Status Mesh::flush(const Deadline& deadline) {
  const auto done = std::make_shared<bool>(false);
  post([done](Mesh& mesh) {
    mesh.flushes_.push_back(done);
    mesh.finish_flushes();
  });
  std::unique_lock lock(mutex_);
  while (!*done) {
    if (const Status status = deadline.check(); !status) {
      return Error{status.error().code, fmt::format("messages to peers were not written: {}", status.error().message), status.error().rank};
    }
    changed_.wait_until(lock, std::min(deadline.next_check(), now() + kWaitSliceMax));
  }
  return {};
}

HeartbeatFrame Mesh::heartbeat(int member) const {
  const TimePoint at = now();
  HeartbeatFrame heartbeat{.progress = progress_.report(), .sender_clock_ns = std::chrono::nanoseconds(at.time_since_epoch()).count()};
  clocks_[static_cast<std::size_t>(member)].add_echo(heartbeat, at);
  return heartbeat;
}

void Mesh::wait_round() {
  round_timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (error || self->over_) {
      return;
    }
    self->detector_.on_round(now());
    for (std::size_t member = 0; member < self->connections_.size(); ++member) {
      if (self->connections_[member]) {
        self->connections_[member]->send(self->heartbeat(static_cast<int>(member)));
      }
    }
    // From now, not from the last expiry: after a time in which we did not run, missed rounds must not all fire at once.
    self->round_timer_.expires_after(self->options_.heartbeat_interval);
    self->wait_round();
  });
}

void Mesh::on_frame(int member, const Frame& frame) {
  if (const auto* beat = std::get_if<HeartbeatFrame>(&frame)) {
    on_heartbeat(member, *beat);
  } else if (const auto* wake = std::get_if<WakeFrame>(&frame)) {
    deliver(member, *wake);
  } else if (const auto* report = std::get_if<FailureFrame>(&frame)) {
    detector_.on_report(member, *report);
  } else if (const auto* request = std::get_if<ReportRequestFrame>(&frame)) {
    on_report_request(member, *request);
  } else if (const auto* part = std::get_if<ReportPartFrame>(&frame)) {
    if (reports_) {
      reports_->on_part(member, *part);
      finish_reports_when_complete();
    }
  } else {
    detector_.on_goodbye(member);
  }
}

void Mesh::on_heartbeat(int member, const HeartbeatFrame& heartbeat) {
  const TimePoint at = now();
  clocks_[static_cast<std::size_t>(member)].on_heartbeat(heartbeat, at);
  detector_.on_heartbeat(member, heartbeat.progress, at);
}

void Mesh::on_closed(int member, const std::string& cause) {
  detector_.on_closed(member, cause);
  if (reports_) {
    reports_->give_up(member, {ErrorCode::kPeerLost, cause, view_.members[static_cast<std::size_t>(member)]});
    finish_reports_when_complete();
  }
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void Mesh::deliver(int member, const WakeFrame& wake) {
  const std::lock_guard lock(receiver_mutex_);
  std::optional<WakeFrame>& kept = kept_wakes_[static_cast<std::size_t>(member)];
  if (!kept || std::tie(kept->epoch, kept->step) < std::tie(wake.epoch, wake.step)) {
    kept = wake;
  }
  deliver_kept_locked();
}

void Mesh::deliver_kept_locked() {
  for (std::size_t member = 0; receiver_ != nullptr && member < kept_wakes_.size(); ++member) {
    if (const auto wake = std::exchange(kept_wakes_[member], std::nullopt)) {
      receiver_->on_wake(static_cast<std::int32_t>(member), wake->epoch, wake->step);
    }
  }
}

void Mesh::finish_flushes() {
  const bool idle = std::ranges::all_of(connections_, [](const auto& connection) { return !connection || connection->idle(); });
  if (!idle || flushes_.empty()) {
    return;
  }
  const std::lock_guard lock(mutex_);
  for (const auto& done : std::exchange(flushes_, {})) {
    *done = true;
  }
  changed_.notify_all();
}

}  // namespace lockstep::comm::peer
