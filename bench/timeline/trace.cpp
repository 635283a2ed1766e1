// What the trace costs a step: the clock reads, the spans and the ring, for a step of a given number of layers in one micro-batch. bench_trace LAYERS; prints
// JSON.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include <fmt/format.h>

#include "daemon/trace/trace_observer.hpp"
#include "lockstep/core/deadline.hpp"
#include "scheduler/step/step_program.hpp"
#include "scheduler/step/timing/stage_clock.hpp"
#include "scheduler/step/timing/step_spans.hpp"

namespace {

using namespace lockstep;

constexpr int kRounds = 51;
constexpr int kStepsPerRound = 2000;
constexpr int kSpansAround = 4;  ///< plan, agree, sample, deliver: their clock reads are the engine's own

/// One step as the executor and the engine trace it.
void trace_step(scheduler::StepSpans& spans, const std::vector<scheduler::ProgramEntry>& program, scheduler::StepObserver& observer, std::int64_t step) {
  spans.start(program);
  TimePoint begin = SteadyClock::instance().now();
  for (const scheduler::ProgramEntry& entry : program) {
    const TimePoint end = SteadyClock::instance().now();
    spans.set(entry, begin, end);
    begin = end;
  }
  scheduler::StepRecord record{.step = step};
  const scheduler::ExchangeTimes times = spans.exchange_times();
  record.dispatch_time = times.dispatch;
  spans.tell(observer, step, false);
  for (int i = 0; i < kSpansAround; ++i) {
    observer.on_span({.kind = scheduler::SpanKind::kPlan, .step = step});
  }
  observer.on_step(record);
}

double microseconds(Duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

}  // namespace

int main(int argc, char** argv) {
  const int layers = argc == 2 ? std::atoi(argv[1]) : 0;
  if (layers < 1) {
    fmt::print(stderr, "usage: bench_trace LAYERS\n");
    return 2;
  }
  const std::vector<std::uint8_t> sparse(static_cast<std::size_t>(layers), 1);
  const std::vector<scheduler::ProgramEntry> program = scheduler::build_step_program(sparse, 1);
  scheduler::StepSpans spans(program.size());
  struct Ignoring final : scheduler::StepObserver {
  } ignoring;
  daemon::TraceObserver observer(ignoring);
  std::vector<double> step_us;
  std::int64_t step = 0;
  for (int round = 0; round < kRounds; ++round) {
    const TimePoint begin = SteadyClock::instance().now();
    for (int i = 0; i < kStepsPerRound; ++i) {
      trace_step(spans, program, observer, step++);
    }
    step_us.push_back(microseconds(SteadyClock::instance().now() - begin) / kStepsPerRound);
  }
  // Split steps read the stages' thread's clock too, at most once in StageClock::kReadEvery of stages.
  std::vector<double> read_us;
  Duration ran{};
  for (int round = 0; round < kRounds; ++round) {
    const TimePoint begin = SteadyClock::instance().now();
    for (int i = 0; i < kStepsPerRound; ++i) {
      ran = std::max(ran, scheduler::StageClock::thread_ran());
    }
    read_us.push_back(microseconds(SteadyClock::instance().now() - begin) / kStepsPerRound);
  }
  // The best round: a neighbour can only add.
  const double core_read_us = std::ranges::min(read_us);
  fmt::print("{{\"trace_us\": {:.4f}, \"spans\": {}, \"core_read_us\": {:.4f}, \"core_read_share_max\": {:.4f}}}\n", std::ranges::min(step_us),
             program.size() + kSpansAround, core_read_us, core_read_us / microseconds(scheduler::StageClock::kReadEvery));
  return ran > Duration{} ? 0 : 1;
}
