#include "daemon/trace/trace_route.hpp"

#include <array>
#include <charconv>

#include <fmt/format.h>

#include "daemon/http/error_body.hpp"
#include "daemon/trace/chrome_trace.hpp"

namespace lockstep::daemon {

Result<std::int64_t> parse_trace_steps(std::string_view query) {
  if (query.empty()) {
    return kTraceStepsDefault;
  }
  constexpr std::string_view kName = "steps=";
  if (!query.starts_with(kName)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("the query is not known; expected steps=N with N from 1 to {}, or none", kTraceStepsMax)};
  }
  const std::string_view text = query.substr(kName.size());
  std::int64_t steps = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (error != std::errc{} || end != text.data() + text.size() || steps < 1 || steps > kTraceStepsMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("steps is no such number; expected one from 1 to {}", kTraceStepsMax)};
  }
  return steps;
}

Handler trace_handler(const TraceRing* ring, AnswerWorker* worker, int rank) {
  return [ring, worker, rank](const std::shared_ptr<Exchange>& exchange) {
    const Result<std::int64_t> steps = parse_trace_steps(exchange->request().query);
    if (!steps) {
      exchange->respond(error_response({.message = steps.error().message, .code = "invalid_value", .param = "steps"}));
      return;
    }
    worker->answer(exchange, [ring, rank, steps = *steps] {
      const std::array ranks{RankTrace{.rank = rank, .spans = ring->last_steps(steps)}};
      return HttpResponse{.body = chrome_trace(ranks)};
    });
  };
}

}  // namespace lockstep::daemon
