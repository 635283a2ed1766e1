// trace_handler: GET /debug/trace?steps=N.
#pragma once

#include <cstdint>
#include <string_view>

#include "daemon/http/answer_worker.hpp"
#include "daemon/http/router.hpp"
#include "daemon/trace/trace_ring.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

inline constexpr std::int64_t kTraceStepsDefault = 100;
inline constexpr std::int64_t kTraceStepsMax = 10'000;

/// Of a request's query: "" or "steps=N".      Errors  kInvalidArgument: another parameter, or N not 1 to kTraceStepsMax.
[[nodiscard]] Result<std::int64_t> parse_trace_steps(std::string_view query);

/// Answers with the newest steps as Chrome-trace JSON: some 10 MB for a full ring, which the worker makes.
/// Ownership  borrows both; the ring outlives the worker, and the worker the handler.
[[nodiscard]] Handler trace_handler(const TraceRing* ring, AnswerWorker* worker, int rank);

}  // namespace lockstep::daemon
