#include "scheduler/step/timing/step_spans.hpp"

#include <algorithm>
#include <array>

namespace lockstep::scheduler {

namespace {

bool is_exchange(const ProgramEntry& entry) {
  return entry.stage == Stage::kDispatch || entry.stage == Stage::kCombine;
}

// Stages and spans have one order, so that one becomes the other by counting.
constexpr auto kFirstStage = static_cast<std::uint8_t>(SpanKind::kEmbed);
static_assert(static_cast<std::uint8_t>(SpanKind::kAttention) - kFirstStage == static_cast<std::uint8_t>(Stage::kAttention));
static_assert(static_cast<std::uint8_t>(SpanKind::kDispatch) - kFirstStage == static_cast<std::uint8_t>(Stage::kDispatch));
static_assert(static_cast<std::uint8_t>(SpanKind::kCombine) - kFirstStage == static_cast<std::uint8_t>(Stage::kCombine));
static_assert(static_cast<std::uint8_t>(SpanKind::kHead) - kFirstStage == static_cast<std::uint8_t>(Stage::kHead));

SpanLane span_lane(const ProgramEntry& entry, bool threaded) {
  if (!threaded) {
    return SpanLane::kStep;
  }
  return entry.stream == StreamRole::kCompute ? SpanLane::kCompute : SpanLane::kComm;
}

}  // namespace

SpanKind span_kind(Stage stage) {
  return static_cast<SpanKind>(kFirstStage + static_cast<std::uint8_t>(stage));
}

std::string_view span_kind_name(SpanKind kind) {
  constexpr std::array<std::string_view, kSpanKindCount> kNames{"plan",    "agree", "embed", "attention", "dense",   "dispatch", "experts",
                                                                "combine", "weigh", "head",  "sample",    "deliver", "graph"};
  const auto index = static_cast<std::size_t>(kind);
  return index < kNames.size() ? kNames[index] : "unknown";
}

ExchangeTimes StepSpans::exchange_times() const {
  ExchangeTimes times;
  // Exchanges are in the order of their begin and stages follow each other: one walk over both. Where exchanges overlap, time counts as the first one's.
  std::size_t compute = 0;
  Duration off_core = intervals_.empty() ? Duration{} : intervals_.front().off_core;  // of that stage, what is not counted yet
  TimePoint counted{};                                                                // up to here exposed time is counted
  for (std::size_t i = 0; i < program_.size(); ++i) {
    if (!is_exchange(program_[i])) {
      continue;
    }
    const Interval& exchange = intervals_[i];
    const TimePoint begin = std::max(exchange.begin, counted);
    const TimePoint end = std::max(exchange.end, begin);
    Duration covered{};
    while (compute < program_.size()) {
      const Interval& busy = intervals_[compute];
      if (!is_exchange(program_[compute])) {
        const Duration under = std::max(std::min(end, busy.end) - std::max(begin, busy.begin), Duration{});
        const Duration lost = std::min(under, off_core);
        off_core -= lost;
        times.core_lost += lost;
        covered += under - lost;
        if (busy.end > end) {
          break;  // it may lie over the next exchange too
        }
      }
      ++compute;
      off_core = compute < program_.size() ? intervals_[compute].off_core : Duration{};
    }
    counted = end;
    const bool dispatches = program_[i].stage == Stage::kDispatch;
    (dispatches ? times.dispatch : times.combine) += exchange.end - exchange.begin;
    (dispatches ? times.dispatch_exposed : times.combine_exposed) += end - begin - covered;
  }
  return times;
}

void StepSpans::tell(StepObserver& observer, std::int64_t step, bool threaded) const {
  for (std::size_t i = 0; i < program_.size(); ++i) {
    const ProgramEntry& entry = program_[i];
    observer.on_span({.kind = span_kind(entry.stage),
                      .lane = span_lane(entry, threaded),
                      .layer = entry.layer,
                      .micro_batch = entry.micro_batch,
                      .step = step,
                      .begin = intervals_[i].begin,
                      .end = intervals_[i].end,
                      .off_core = intervals_[i].off_core});
  }
}

}  // namespace lockstep::scheduler
