#include "daemon/trace/chrome_trace.hpp"

#include <algorithm>
#include <array>
#include <iterator>

#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

using scheduler::SpanLane;
using scheduler::SpanRecord;

/// Exchanges of one micro-batch follow each other, those of two overlap: a line each, after the others. The most micro-batches that a step has are four.
constexpr std::array<std::string_view, 6> kLaneNames{
    "step thread", "compute stream", "exchanges of micro-batch 0", "exchanges of micro-batch 1", "exchanges of micro-batch 2", "exchanges of micro-batch 3"};
/// The same of a device, where one has told its times.
constexpr std::array<std::string_view, 5> kDeviceLaneNames{"device: compute stream", "device: exchanges of micro-batch 0", "device: exchanges of micro-batch 1",
                                                           "device: exchanges of micro-batch 2", "device: exchanges of micro-batch 3"};
constexpr std::size_t kEventBytes = 160;  // a usual event: what is reserved for each

std::int64_t nanoseconds(Duration duration) {
  return std::chrono::nanoseconds(duration).count();
}

/// Not by way of a double: a clock of years has more digits than it.
void append_microseconds(std::string& out, std::int64_t ns) {
  constexpr std::int64_t kNsPerUs = 1000;
  const std::int64_t magnitude = ns < 0 ? -ns : ns;
  fmt::format_to(std::back_inserter(out), "{}{}.{:03}", ns < 0 ? "-" : "", magnitude / kNsPerUs, magnitude % kNsPerUs);
}

bool is_of_device(const SpanRecord& span) {
  return span.lane == SpanLane::kDeviceCompute || span.lane == SpanLane::kDeviceComm;
}

void append_line_names(std::string& out, int rank, std::size_t first_line, std::span<const std::string_view> names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    fmt::format_to(std::back_inserter(out), R"({{"name":"thread_name","ph":"M","pid":{},"tid":{},"args":{{"name":"{}"}}}},)", rank, first_line + i, names[i]);
  }
}

void append_names(std::string& out, int rank, bool with_device) {
  fmt::format_to(std::back_inserter(out),
                 R"({{"name":"process_name","ph":"M","pid":{0},"args":{{"name":"rank {0}"}}}},)"
                 R"({{"name":"process_sort_index","ph":"M","pid":{0},"args":{{"sort_index":{0}}}}},)",
                 rank);
  append_line_names(out, rank, 0, kLaneNames);
  if (with_device) {
    append_line_names(out, rank, kLaneNames.size(), kDeviceLaneNames);
  }
}

int line_of(const SpanRecord& span) {
  constexpr auto kDeviceLines = static_cast<int>(kLaneNames.size());
  const int micro_batch = std::max(span.micro_batch, 0);
  switch (span.lane) {
    case SpanLane::kStep:
      return 0;
    case SpanLane::kCompute:
      return 1;
    case SpanLane::kComm:
      return 2 + micro_batch;
    case SpanLane::kDeviceCompute:
      return kDeviceLines;
    case SpanLane::kDeviceComm:
      return kDeviceLines + 1 + micro_batch;
  }
  return 0;
}

void append_span(std::string& out, const RankTrace& trace, const SpanRecord& span) {
  fmt::format_to(std::back_inserter(out), R"({{"name":"{}","cat":"step","ph":"X","ts":)", scheduler::span_kind_name(span.kind));
  append_microseconds(out, nanoseconds(span.begin.time_since_epoch() - trace.clock_offset));
  out += R"(,"dur":)";
  append_microseconds(out, nanoseconds(span.end - span.begin));
  fmt::format_to(std::back_inserter(out), R"(,"pid":{},"tid":{},"args":{{"step":{})", trace.rank, line_of(span), span.step);
  if (span.layer >= 0) {
    fmt::format_to(std::back_inserter(out), R"(,"layer":{})", span.layer);
  }
  if (span.micro_batch >= 0) {
    fmt::format_to(std::back_inserter(out), R"(,"micro_batch":{})", span.micro_batch);
  }
  if (span.off_core > Duration{}) {
    out += R"(,"off_core_us":)";
    append_microseconds(out, nanoseconds(span.off_core));
  }
  out += "}},";
}

}  // namespace

std::string chrome_trace(std::span<const RankTrace> ranks, std::string_view metadata) {
  std::string out = R"({"displayTimeUnit":"ms","traceEvents":[)";
  std::size_t spans = 0;
  for (const RankTrace& trace : ranks) {
    spans += trace.spans.size();
  }
  out.reserve(out.size() + kEventBytes * (spans + (2 + kLaneNames.size() + kDeviceLaneNames.size()) * ranks.size()));
  for (const RankTrace& trace : ranks) {
    append_names(out, trace.rank, std::ranges::any_of(trace.spans, is_of_device));
    for (const SpanRecord& span : trace.spans) {
      append_span(out, trace, span);
    }
  }
  if (out.back() == ',') {
    out.pop_back();
  }
  out += ']';
  if (!metadata.empty()) {
    fmt::format_to(std::back_inserter(out), R"(,"metadata":{})", metadata);
  }
  out += "}\n";
  return out;
}

}  // namespace lockstep::daemon
