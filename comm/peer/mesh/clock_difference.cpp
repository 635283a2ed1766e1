#include "comm/peer/mesh/clock_difference.hpp"

#include <algorithm>

namespace lockstep::comm::peer {

namespace {

std::int64_t nanoseconds(TimePoint time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

}  // namespace

void ClockDifference::on_heartbeat(const HeartbeatFrame& heartbeat, TimePoint now) {
  const std::int64_t now_ns = nanoseconds(now);
  last_sent_by_peer_ns_ = heartbeat.sender_clock_ns;
  last_came_ns_ = now_ns;
  if (heartbeat.echo_clock_ns <= 0 || heartbeat.echo_clock_ns > now_ns || heartbeat.echo_held_ns < 0 ||
      heartbeat.echo_held_ns > now_ns - heartbeat.echo_clock_ns) {
    return;
  }
  Sample sample;
  sample.round_trip_ns = now_ns - heartbeat.echo_clock_ns - heartbeat.echo_held_ns;
  // The sender's clock is whatever it says: a sum that does not fit is none of a clock's.
  if (!__builtin_sub_overflow(heartbeat.sender_clock_ns, now_ns - sample.round_trip_ns / 2, &sample.ahead_ns)) {
    samples_[count_++ % kSamples] = sample;
  }
}

void ClockDifference::add_echo(HeartbeatFrame& heartbeat, TimePoint now) const {
  heartbeat.echo_clock_ns = last_sent_by_peer_ns_;
  heartbeat.echo_held_ns = last_came_ns_ == 0 ? 0 : nanoseconds(now) - last_came_ns_;
}

std::optional<ClockEstimate> ClockDifference::estimate() const {
  if (count_ == 0) {
    return std::nullopt;
  }
  const auto end = samples_.begin() + static_cast<std::ptrdiff_t>(std::min(count_, kSamples));
  const auto quickest = std::min_element(samples_.begin(), end, [](const Sample& a, const Sample& b) { return a.round_trip_ns < b.round_trip_ns; });
  return ClockEstimate{.ahead = std::chrono::nanoseconds(quickest->ahead_ns), .error = std::chrono::nanoseconds(quickest->round_trip_ns / 2)};
}

}  // namespace lockstep::comm::peer
