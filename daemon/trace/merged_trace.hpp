// merged_trace: the spans of all ranks on one clock.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::daemon {

/// How far the clock of `other` is ahead of that of `own`, and how far off that may be: between what the agreements allow (one ends on no rank before every
/// rank has begun it, so each common step bounds the difference from both sides), the value next to the heartbeats' estimate. nullopt: neither tells, or the
/// agreements contradict each other, as those of two groups would.
[[nodiscard]] std::optional<comm::ClockEstimate> clock_difference(const std::vector<scheduler::SpanRecord>& own,
                                                                  const std::vector<scheduler::SpanRecord>& other,
                                                                  const std::optional<comm::ClockEstimate>& heartbeats);

/// Chrome-trace JSON on the clock of `rank`, whose spans are `own`. Its "metadata" has the clocks' differences and largest errors, and under "missing" each
/// rank that gave no report, or one that cannot be read, with the reason. `only`: one rank alone, which may be another; nullopt: all.
[[nodiscard]] std::string merged_trace(int rank, std::vector<scheduler::SpanRecord> own, const std::vector<comm::PeerReport>& reports,
                                       std::optional<int> only = std::nullopt);

}  // namespace lockstep::daemon
