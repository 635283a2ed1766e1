// StepSpans: when each entry of a step program ran, and how much of its exchanges nothing was computed under.
#pragma once

#include <span>
#include <vector>

#include "lockstep/core/deadline.hpp"
#include "lockstep/scheduler/step_observer.hpp"
#include "scheduler/step/step_program.hpp"

namespace lockstep::scheduler {

[[nodiscard]] SpanKind span_kind(Stage stage);

struct ExchangeTimes {
  Duration dispatch{};
  Duration combine{};
  Duration dispatch_exposed{};  ///< of these, while nothing was computed; time that two exchanges share counts once
  Duration combine_exposed{};
  Duration core_lost{};  ///< of the exposed: within stages whose thread had no core
};

/// Ownership  a value.      Threads  `set`: of one entry at a time, entries of different streams at the same time; all else when no stream runs.
class StepSpans {
 public:
  struct Interval {
    TimePoint begin{};
    TimePoint end{};
    Duration off_core{};  ///< of it, a stage's thread had no core
  };

  explicit StepSpans(std::size_t entries_max) : intervals_(entries_max) {}
  /// `program` outlives the step. Allocates nothing.
  void start(std::span<const ProgramEntry> program) { program_ = program; }
  /// `entry` is one of the program.
  void set(const ProgramEntry& entry, TimePoint begin, TimePoint end, Duration off_core = {}) {
    intervals_[static_cast<std::size_t>(&entry - program_.data())] = {begin, end, off_core};
  }

  /// Stages ran one after the other, exchanges began one after the other, both in the program's order. When in a stage its thread had no core is not known:
  /// as much as fits is taken to be under exchanges, whose bytes and looks are what a stage has to share its core with.      Cost  O(entries).
  [[nodiscard]] ExchangeTimes exchange_times() const;
  /// Each entry as a span. `threaded`: the stages ran on the streams, else all on the step thread.
  void tell(StepObserver& observer, std::int64_t step, bool threaded) const;

 private:
  std::span<const ProgramEntry> program_;
  std::vector<Interval> intervals_;  ///< [entries_max], by position in the program
};

}  // namespace lockstep::scheduler
