// trace_handler: GET /debug/trace?steps=N&rank=R.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "daemon/http/answer_worker.hpp"
#include "daemon/http/router.hpp"
#include "daemon/trace/trace_ring.hpp"
#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

inline constexpr std::int64_t kTraceStepsDefault = 100;
inline constexpr std::int64_t kTraceStepsMax = 10'000;

/// How long the other ranks have for theirs.
inline constexpr Duration kTraceLimit = std::chrono::seconds(5);

struct TraceQuery {
  std::int64_t steps = kTraceStepsDefault;
  std::optional<int> rank{};  ///< whose steps; nullopt: those of all
};

/// Of a request's query to rank `own` of `rank_count`: "steps=N", and "rank=R", "ranks=local" (this rank alone) or "ranks=all", each at most once, joined by
/// "&". Errors  kInvalidArgument, with the value: another parameter or value, N not 1 to kTraceStepsMax, R no rank.
[[nodiscard]] Result<TraceQuery> parse_trace_query(std::string_view query, int own, int rank_count);

struct TraceParts {
  const TraceRing* ring = nullptr;
  AnswerWorker* worker = nullptr;
  comm::PeerChannel* const* peers = nullptr;  ///< the Asio thread's view of the channel: points to null while there is none
  int rank = 0;
  int rank_count = 1;
};

/// Answers with the newest steps as Chrome-trace JSON: some 10 MB for the full ring of each rank, which the worker makes.
/// Ownership  borrows all; the ring outlives the worker, and the worker the handler.
[[nodiscard]] Handler trace_handler(const TraceParts& parts);

}  // namespace lockstep::daemon
