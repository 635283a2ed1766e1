#include "daemon/trace/trace_route.hpp"

#include <charconv>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "daemon/http/error_body.hpp"
#include "daemon/trace/merged_trace.hpp"

namespace lockstep::daemon {

namespace {

constexpr std::string_view kSteps = "steps=";

Status read_steps(std::string_view text, std::int64_t& steps) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (error != std::errc{} || end != text.data() + text.size() || steps < 1 || steps > kTraceStepsMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("steps is no such number; expected one from 1 to {}", kTraceStepsMax)};
  }
  return {};
}

}  // namespace

Result<TraceQuery> parse_trace_query(std::string_view query) {
  TraceQuery result;
  while (!query.empty()) {
    const std::size_t end = query.find('&');
    const std::string_view part = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    if (part.starts_with(kSteps)) {
      LOCKSTEP_RETURN_IF_ERROR(read_steps(part.substr(kSteps.size()), result.steps));
    } else if (part == "ranks=all" || part == "ranks=local") {
      result.all_ranks = part == "ranks=all";
    } else {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("the query is not known; expected steps=N with N from 1 to {}, ranks=all or ranks=local", kTraceStepsMax)};
    }
  }
  return result;
}

Handler trace_handler(const TraceParts& parts) {
  return [parts](const std::shared_ptr<Exchange>& exchange) {
    const Result<TraceQuery> query = parse_trace_query(exchange->request().query);
    if (!query) {
      exchange->respond(error_response({.message = query.error().message, .code = "invalid_value"}));
      return;
    }
    const auto abandoned = std::make_shared<bool>(false);  // shared by the exchange, which sets it, and the answer, which may come later
    exchange->on_abandoned([abandoned] { *abandoned = true; });
    const auto answer = [parts, exchange, abandoned, steps = query->steps](std::vector<comm::PeerReport> reports) {
      if (*abandoned) {
        return;
      }
      parts.worker->answer(exchange, [parts, steps, reports = std::move(reports)] {
        return HttpResponse{.body = merged_trace(parts.rank, parts.ring->last_steps(steps), reports)};
      });
    };
    if (query->all_ranks && *parts.peers != nullptr) {
      (*parts.peers)->ask_reports(query->steps, kTraceLimit, answer);
    } else {
      answer({});
    }
  };
}

}  // namespace lockstep::daemon
