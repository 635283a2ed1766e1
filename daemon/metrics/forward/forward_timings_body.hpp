// forward_timings_body: the answer of GET /debug/forward_timings.
#pragma once

#include <string>

#include "lockstep/forward_context.hpp"

namespace lockstep::daemon {

/// {"batch_sizes": [{"batch_size": 8, "count": 3, "mean_ms": ..., "p50_ms": ..., "p99_ms": ..., "min_ms": ..., "max_ms": ...}, ...]}, by ascending size.
[[nodiscard]] std::string forward_timings_body(const ForwardTimingTracker& tracker);

}  // namespace lockstep::daemon
