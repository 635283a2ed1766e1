// make_routes: the table of everything that the daemon serves.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/api/embeddings/embedding_service.hpp"
#include "daemon/api/generation_service.hpp"
#include "daemon/api/tokenize/tokenize_service.hpp"
#include "daemon/http/answer_worker.hpp"
#include "daemon/http/router.hpp"
#include "daemon/lifecycle/life_monitor.hpp"
#include "daemon/metrics/metrics.hpp"
#include "daemon/trace/trace_ring.hpp"

namespace lockstep::daemon {

/// Borrowed; all outlive the routes.
struct RouteParts {
  GenerationService* generation = nullptr;
  TokenizeService* tokenize = nullptr;
  EmbeddingService* embeddings = nullptr;
  LifeMonitor* life = nullptr;
  Metrics* metrics = nullptr;
  const ForwardTimingTracker* forward_timings = nullptr;
  const TraceRing* trace = nullptr;
  comm::PeerChannel* const* peers = nullptr;  ///< points to null while there is no channel
  AnswerWorker* worker = nullptr;             ///< makes the answers that take long
  int rank = 0;
  int rank_count = 1;
  std::string version;
  std::vector<std::string> models;  ///< names of the one model; at least one
  std::int64_t max_model_len = 0;
  bool needs_key = false;          ///< API keys are set
  bool metrics_elsewhere = false;  ///< /metrics has an address of its own
};

[[nodiscard]] std::vector<Route> make_routes(const RouteParts& parts);

}  // namespace lockstep::daemon
