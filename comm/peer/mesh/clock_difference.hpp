// ClockDifference: how far a peer's steady clock is ahead of ours, from the heartbeats that go there and back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "comm/peer/wire/frame.hpp"
#include "lockstep/comm/peer_channel.hpp"

namespace lockstep::comm::peer {

/// A heartbeat brings the sender's clock, and when the last one of ours was sent and how long it lay there. What is left of the time since then was spent on
/// the way; half of it is taken for each direction, so half of it is also the largest error. Of the last kSamples heartbeats the quickest counts: a busy thread
/// makes round trips longer, never shorter; and old ones go, as clocks drift apart. Errors  what cannot be true (an echo from the future, a negative time) is
/// left out.      Threads  one at a time.
class ClockDifference {
 public:
  static constexpr std::size_t kSamples = 64;

  /// The heartbeat came at `now`, by our clock.
  void on_heartbeat(const HeartbeatFrame& heartbeat, TimePoint now);
  /// Fills in what the peer needs to do the same with `heartbeat`, which leaves at `now`.
  void add_echo(HeartbeatFrame& heartbeat, TimePoint now) const;
  /// nullopt before the first heartbeat that answers one of ours.
  [[nodiscard]] std::optional<ClockEstimate> estimate() const;

 private:
  struct Sample {
    std::int64_t ahead_ns = 0;
    std::int64_t round_trip_ns = 0;
  };
  std::array<Sample, kSamples> samples_{};
  std::size_t count_ = 0;  ///< taken so far; the newest is at (count_ - 1) % kSamples
  std::int64_t last_sent_by_peer_ns_ = 0;
  std::int64_t last_came_ns_ = 0;
};

}  // namespace lockstep::comm::peer
