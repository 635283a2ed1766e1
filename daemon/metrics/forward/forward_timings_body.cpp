#include "daemon/metrics/forward/forward_timings_body.hpp"

#include <boost/json.hpp>

namespace lockstep::daemon {

std::string forward_timings_body(const ForwardTimingTracker& tracker) {
  boost::json::array sizes;
  for (const ForwardTimingTracker::Stats& stats : tracker.get_stats()) {
    boost::json::object& size = sizes.emplace_back(boost::json::object()).get_object();
    size["batch_size"] = stats.batch_size;
    size["count"] = stats.count;
    size["mean_ms"] = stats.mean_ms;
    size["p50_ms"] = stats.p50_ms;
    size["p99_ms"] = stats.p99_ms;
    size["min_ms"] = stats.min_ms;
    size["max_ms"] = stats.max_ms;
  }
  boost::json::object body;
  body["batch_sizes"] = std::move(sizes);
  return boost::json::serialize(body);
}

}  // namespace lockstep::daemon
