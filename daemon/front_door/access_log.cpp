#include "daemon/front_door/access_log.hpp"

#include <algorithm>
#include <array>
#include <chrono>

#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

constexpr std::array<std::string_view, 5> kProbes{"/health", "/health/live", "/health/ready", "/ready", "/metrics"};
constexpr std::array<std::string_view, 8> kMethods{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "none"};

/// What somebody asks every few seconds, answered as always.
bool is_routine(const ResponseFacts& facts) {
  return facts.status == 200 && std::ranges::find(kProbes, facts.route) != kProbes.end();
}

}  // namespace

std::string access_line(const ResponseFacts& facts) {
  const bool known = std::ranges::find(kMethods, facts.method) != kMethods.end();
  return fmt::format("access remote={} method={} route={} status={} bytes={} seconds={:.4f} request_id={}", facts.remote,
                     known ? facts.method : std::string_view("other"), facts.route, facts.status, facts.bytes,
                     std::chrono::duration<double>(facts.duration).count(), facts.request_id);
}

void AccessLog::on_response(const ResponseFacts& facts) {
  if (level_ == AccessLogLevel::kOff || (level_ == AccessLogLevel::kRequests && is_routine(facts)) || !logger_.should_log(spdlog::level::info)) {
    return;
  }
  logger_.info("{}", access_line(facts));
}

}  // namespace lockstep::daemon
