// chrome_trace: spans as Chrome-trace JSON, which Perfetto and chrome://tracing open.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::daemon {

/// What one rank did, by its own clock.
struct RankTrace {
  int rank = 0;
  Duration clock_offset{};  ///< how far its clock is ahead of the clock that the trace is to be on
  std::vector<scheduler::SpanRecord> spans;
};

/// Each rank is a process, each lane a thread of it; times in microseconds with three decimals.
/// {"displayTimeUnit":"ms","traceEvents":[{"name":"attention","ph":"X","ts":1.5,"dur":2,"pid":0,"tid":0,"args":{"step":7,"layer":0,"micro_batch":0,"off_core_us":0.2}},
/// ...]} `metadata`: a JSON object that becomes the member "metadata"; "" for none.
[[nodiscard]] std::string chrome_trace(std::span<const RankTrace> ranks, std::string_view metadata = {});

}  // namespace lockstep::daemon
