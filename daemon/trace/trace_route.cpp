#include "daemon/trace/trace_route.hpp"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "daemon/http/error_body.hpp"
#include "daemon/trace/merged_trace.hpp"

namespace lockstep::daemon {

namespace {

constexpr std::size_t kShownMax = 40;

/// What a client sent, for the message that refuses it: a query may hold any bytes, of any number.
std::string shown(std::string_view text) {
  std::string result(text.substr(0, kShownMax));
  std::ranges::replace_if(
      result, [](char byte) { return byte <= ' ' || byte > '~'; }, '?');  // what is above ASCII too: char is signed here, or it is above '~'
  return result + (text.size() > kShownMax ? "..." : "");
}

/// One from `least` to `most`; `name` is the parameter's.
Result<std::int64_t> read_number(std::string_view name, std::string_view text, std::int64_t least, std::int64_t most) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < least || number > most) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} is \"{}\"; expected a number from {} to {}", name, shown(text), least, most)};
  }
  return number;
}

std::vector<comm::PeerReport> reports_of_nobody(const TraceParts& parts) {
  std::vector<comm::PeerReport> reports;
  for (int rank = 0; rank < parts.rank_count; ++rank) {
    if (rank != parts.rank) {
      reports.push_back({.member = rank, .status = Error{ErrorCode::kPeerLost, "the ranks have not met yet: ask again when this one is ready"}});
    }
  }
  return reports;
}

}  // namespace

Result<TraceQuery> parse_trace_query(std::string_view query, int own, int rank_count) {
  TraceQuery result;
  bool has_steps = false;
  bool has_ranks = false;
  while (!query.empty()) {
    const std::size_t end = query.find('&');
    const std::string_view part = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    const std::size_t equals = std::min(part.find('='), part.size());
    const std::string_view name = part.substr(0, equals);
    const std::string_view value = part.substr(std::min(equals + 1, part.size()));
    const bool whose = name == "rank" || name == "ranks";
    if ((name != "steps" && !whose) || (whose ? has_ranks : has_steps)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("the query has \"{}\"; expected steps=N, and one of rank=R, ranks=local and ranks=all", shown(part))};
    }
    (whose ? has_ranks : has_steps) = true;
    if (name == "steps") {
      LOCKSTEP_ASSIGN_OR_RETURN(result.steps, read_number(name, value, 1, kTraceStepsMax));
    } else if (name == "rank") {
      LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t rank, read_number(name, value, 0, rank_count - 1));
      result.rank = static_cast<int>(rank);
    } else if (value == "local") {
      result.rank = own;
    } else if (value != "all") {
      return Error{ErrorCode::kInvalidArgument, fmt::format("ranks is \"{}\"; expected all or local, or rank=R for one of them", shown(value))};
    }
  }
  return result;
}

Handler trace_handler(const TraceParts& parts) {
  return [parts](const std::shared_ptr<Exchange>& exchange) {
    const Result<TraceQuery> query = parse_trace_query(exchange->request().query, parts.rank, parts.rank_count);
    if (!query) {
      exchange->respond(error_response({.message = query.error().message, .code = "invalid_value"}));
      return;
    }
    const auto abandoned = std::make_shared<bool>(false);  // shared by the exchange, which sets it, and the answer, which may come later
    exchange->on_abandoned([abandoned] { *abandoned = true; });
    const auto answer = [parts, exchange, abandoned, query = *query](std::vector<comm::PeerReport> reports) {
      if (*abandoned) {
        return;
      }
      parts.worker->answer(exchange, [parts, query, reports = std::move(reports)] {
        return HttpResponse{.body = merged_trace(parts.rank, parts.ring->last_steps(query.steps), reports, query.rank)};
      });
    };
    if (query->rank == parts.rank) {
      answer({});
    } else if (*parts.peers != nullptr) {
      (*parts.peers)->ask_reports(query->steps, kTraceLimit, answer, query->rank);
    } else {
      answer(reports_of_nobody(parts));
    }
  };
}

}  // namespace lockstep::daemon
