#include "daemon/trace/merged_trace.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <boost/json.hpp>

#include "daemon/trace/chrome_trace.hpp"
#include "daemon/trace/trace_report.hpp"

namespace lockstep::daemon {
namespace {

using scheduler::SpanRecord;

double microseconds(Duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

boost::json::object clock_object(int rank, const comm::ClockEstimate& clock) {
  boost::json::object object;
  object["rank"] = rank;
  object["clock_ahead_us"] = microseconds(clock.ahead);
  object["clock_error_us"] = microseconds(clock.error);
  return object;
}

boost::json::object missing_object(int rank, std::string_view cause) {
  boost::json::object object;
  object["rank"] = rank;
  object["cause"] = cause;
  return object;
}

/// When a rank agreed: not before `begin`, and not after `end`.
struct Agreement {
  TimePoint begin;
  TimePoint end;
};

/// By step. Where a plan was made before the step before it was delivered, ranks agree ahead: an agreement has begun when its plan was made, and the rank began
/// to wait for it later.
std::unordered_map<std::int64_t, Agreement> agreements_of(const std::vector<SpanRecord>& spans) {
  std::unordered_map<std::int64_t, TimePoint> planned;
  std::unordered_map<std::int64_t, TimePoint> delivered;
  std::unordered_map<std::int64_t, Agreement> agreements;
  for (const SpanRecord& span : spans) {
    if (span.kind == scheduler::SpanKind::kPlan) {
      planned[span.step] = span.end;
    } else if (span.kind == scheduler::SpanKind::kDeliver) {
      delivered[span.step] = span.end;
    } else if (span.kind == scheduler::SpanKind::kAgree) {
      agreements[span.step] = {.begin = span.begin, .end = span.end};
    }
  }
  const auto is_ahead = [&](const auto& plan) {
    const auto before = delivered.find(plan.first - 1);
    return before != delivered.end() && plan.second < before->second;
  };
  if (std::ranges::any_of(planned, is_ahead)) {
    for (auto& [step, agreement] : agreements) {
      const auto plan = planned.find(step);
      agreement.begin = plan == planned.end() ? agreement.begin : std::min(plan->second, agreement.begin);
    }
  }
  return agreements;
}

}  // namespace

std::optional<comm::ClockEstimate> clock_difference(const std::vector<SpanRecord>& own, const std::vector<SpanRecord>& other,
                                                    const std::optional<comm::ClockEstimate>& heartbeats) {
  const std::unordered_map<std::int64_t, Agreement> agreements = agreements_of(own);
  Duration most = Duration::max();
  Duration least = Duration::min();
  for (const auto& [step, theirs] : agreements_of(other)) {
    const auto ours = agreements.find(step);
    if (ours != agreements.end()) {
      // We begin before they end, and they begin before we end, in true time.
      most = std::min(most, theirs.end - ours->second.begin);
      least = std::max(least, theirs.begin - ours->second.end);
    }
  }
  if (most == Duration::max()) {
    return heartbeats;
  }
  if (most < least) {
    return std::nullopt;
  }
  const Duration middle = least + (most - least) / 2;
  const Duration ahead = heartbeats ? std::clamp(heartbeats->ahead, least, most) : middle;
  const Duration error = std::max(most - ahead, ahead - least);
  return comm::ClockEstimate{.ahead = ahead, .error = heartbeats && heartbeats->ahead == ahead ? std::min(error, heartbeats->error) : error};
}

std::string merged_trace(int rank, std::vector<SpanRecord> own, const std::vector<comm::PeerReport>& reports, std::optional<int> only) {
  boost::json::object metadata;
  metadata["clock_of_rank"] = rank;
  boost::json::array clocks;
  boost::json::array missing;
  std::vector<RankTrace> ranks;
  ranks.push_back({.rank = rank, .spans = std::move(own)});
  clocks.push_back(clock_object(rank, {}));
  for (const comm::PeerReport& report : reports) {
    if (only && report.member != *only) {
      continue;
    }
    if (!report.status) {
      missing.push_back(missing_object(report.member, report.status.error().message));
      continue;
    }
    Result<std::vector<SpanRecord>> spans = decode_spans(report.bytes);
    if (!spans) {
      missing.push_back(missing_object(report.member, spans.error().message));
      continue;
    }
    const auto clock = clock_difference(ranks.front().spans, *spans, report.clock);
    if (!clock) {
      missing.push_back(missing_object(report.member,
                                       "nothing tells how far its clock is apart: no heartbeat has gone there and back, or its agreements "
                                       "contradict this rank's"));
      continue;
    }
    clocks.push_back(clock_object(report.member, *clock));
    ranks.push_back({.rank = report.member, .clock_offset = clock->ahead, .spans = std::move(*spans)});
  }
  if (only && *only != rank) {
    // Needed up to here: our spans tell how far the other clock is apart.
    ranks.erase(ranks.begin());
    clocks.erase(clocks.begin());
  }
  metadata["ranks"] = std::move(clocks);
  metadata["missing"] = std::move(missing);
  return chrome_trace(ranks, boost::json::serialize(metadata));
}

}  // namespace lockstep::daemon
