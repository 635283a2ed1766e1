#include "scheduler/step/overlapped_program.hpp"

#include <algorithm>
#include <cstdint>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>

namespace lockstep::scheduler {

namespace {

constexpr Duration kNoLimit = Duration::max();
/// After a failure, for a device: what it has been given may hang for the same reason.
constexpr Duration kEndLimit = std::chrono::seconds(2);

/// Stages between two checkpoints. At most twice as many are enqueued and not run, with a wait each: they fit a stream's ring, so that enqueueing never blocks
/// the thread that has to end the exchanges which the stages wait for.
constexpr std::size_t kStagesAhead = 48;

/// Naps between two looks: a share of the time that the oldest exchange has taken, within bounds. What they may add to an exchange is that share; what they
/// take from the stages on a core of their own is a look, some microseconds, a nap.
constexpr int kNapShare = 16;
constexpr Duration kNapMin = std::chrono::microseconds(20);
constexpr Duration kNapMax = std::chrono::milliseconds(1);
/// By default Linux lets a nap last 50 us longer than asked for.
constexpr unsigned long kTimerSlackNs = 1000;

/// The kernel's struct sched_attr as it was first; glibc has none.
struct SchedulingAttributes {
  std::uint32_t size = sizeof(SchedulingAttributes);
  std::uint32_t policy = 0;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime_ns = 0;
  std::uint64_t deadline_ns = 0;
  std::uint64_t period_ns = 0;
};
static_assert(sizeof(SchedulingAttributes) == 48);
constexpr std::uint64_t kSliceNs = 100'000;  // the shortest that may be asked for

/// Lets the calling thread wake on time beside stages that are busy on the same core. Since Linux 6.12 who asks for a shorter slice may interrupt who has a
/// longer one; else a stage goes on for its slice, some milliseconds, in which the link has nothing to do. Needs no privilege, takes no larger share of the
/// core; an older kernel ignores it, and a refusal costs time only.
void wake_on_time() {
  prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
  SchedulingAttributes attributes;
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) == 0 && attributes.policy == SCHED_OTHER) {
    attributes.size = sizeof(attributes);
    attributes.runtime_ns = kSliceNs;
    static_cast<void>(syscall(SYS_sched_setattr, 0, &attributes, 0));
  }
}

}  // namespace

Result<std::unique_ptr<OverlappedProgram>> OverlappedProgram::create(device::Device& device, std::size_t entries_max, std::int32_t micro_batches_max) {
  std::unique_ptr<OverlappedProgram> made(new OverlappedProgram);  // the constructor is private
  wake_on_time();
  LOCKSTEP_ASSIGN_OR_RETURN(made->compute_, device.make_stream("compute-0"));
  for (std::size_t i = 0; i < entries_max; ++i) {
    made->events_.push_back(device.make_event());
  }
  made->points_.resize(static_cast<std::size_t>(micro_batches_max));
  made->tasks_run_when_due_ = device.host_memory();
  for (Points& points : made->points_) {
    for (std::unique_ptr<device::Signal>& signal : points.exchanged) {
      signal = made->tasks_run_when_due_ ? device.make_signal() : nullptr;
    }
  }
  for (std::unique_ptr<device::Event>& checkpoint : made->checkpoints_) {
    checkpoint = device.make_event();
  }
  made->waiting_.reserve(entries_max);
  made->flying_.reserve(made->points_.size());  // a micro-batch has one exchange at a time
  return made;
}

Status OverlappedProgram::run(std::span<const ProgramEntry> program, OverlappedStages& stages) {
  stages_ = &stages;
  program_ = program;
  next_ = 0;
  ahead_ = 0;
  waiting_.clear();
  next_waiting_ = 0;
  flying_.clear();
  Status status = run_all();
  if (!status) {
    // Stages wait for the exchanges that were armed: they are to be skipped, and nobody may be left behind.
    for (const Flying& flying : flying_) {
      end_exchange(*flying.entry, status.error());
    }
    for (; next_waiting_ < waiting_.size(); ++next_waiting_) {
      end_exchange(*waiting_[next_waiting_].entry, status.error());
    }
  }
  if (status) {
    return stages.wait_for(*compute_);
  }
  // The error of a collective names its cause better than the compute stream's wait for it.
  static_cast<void>(compute_->synchronize(Deadline::after(tasks_run_when_due_ ? kNoLimit : kEndLimit)));
  return status;
}

Status OverlappedProgram::run_all() {
  while (true) {
    enqueue_ahead();
    LOCKSTEP_ASSIGN_OR_RETURN(const bool started, start_next());
    LOCKSTEP_ASSIGN_OR_RETURN(const bool finished, finish_arrived());
    if (next_ == program_.size() && next_waiting_ == waiting_.size() && flying_.empty()) {
      return {};
    }
    if (!started && !finished) {
      LOCKSTEP_RETURN_IF_ERROR(rest());
    }
  }
}

void OverlappedProgram::enqueue_ahead() {
  for (; next_ < program_.size(); ++next_) {
    const ProgramEntry& entry = program_[next_];
    if (entry.stream == StreamRole::kComm) {
      if (tasks_run_when_due_) {
        signal_of(entry).arm();  // before anything that waits for it is enqueued
      }
      points_of(entry).exchanging[static_cast<std::size_t>(entry.record)] = true;
      waiting_.push_back({.entry = &entry, .computed = points_of(entry).computed[static_cast<std::size_t>(entry.wait)]});
    } else if (is_due(entry) && has_room()) {
      enqueue(entry, *events_[next_]);
    } else {
      return;
    }
  }
}

bool OverlappedProgram::is_due(const ProgramEntry& entry) const {
  return tasks_run_when_due_ || entry.wait == StepEvent::kNone ||
         !points_[static_cast<std::size_t>(entry.micro_batch)].exchanging[static_cast<std::size_t>(entry.wait)];
}

void OverlappedProgram::end_exchange(const ProgramEntry& entry, Status status) {
  points_of(entry).exchanging[static_cast<std::size_t>(entry.record)] = false;
  if (tasks_run_when_due_) {
    signal_of(entry).fire(std::move(status));
  }
}

bool OverlappedProgram::has_room() {
  if (ahead_ < kStagesAhead) {
    return true;
  }
  if (!checkpoints_.front()->query()) {
    return false;
  }
  compute_->record(*checkpoints_.front());
  std::swap(checkpoints_.front(), checkpoints_.back());
  ahead_ = 0;
  return true;
}

void OverlappedProgram::enqueue(const ProgramEntry& entry, device::Event& recorded) {
  Points& points = points_of(entry);
  if (entry.wait != StepEvent::kNone && tasks_run_when_due_) {
    compute_->wait_for(points.exchanged[static_cast<std::size_t>(entry.wait)]->event());
  }
  stages_->enqueue(entry, *compute_);
  if (entry.record != StepEvent::kNone) {
    compute_->record(recorded);
    points.computed[static_cast<std::size_t>(entry.record)] = &recorded;
  }
  ++ahead_;
}

Result<bool> OverlappedProgram::start_next() {
  // One at a time, and only the next: all ranks start the same exchanges in the same order.
  if (next_waiting_ == waiting_.size()) {
    return false;
  }
  const Waiting next = waiting_[next_waiting_];
  if (stages_->needs_result(*next.entry)) {
    if (!next.computed->query()) {
      return false;
    }
    LOCKSTEP_RETURN_IF_ERROR(stages_->wait_for(*next.computed));  // reached: it tells whether the stage failed
  }
  const TimePoint begin = SteadyClock::instance().now();
  LOCKSTEP_RETURN_IF_ERROR(stages_->start(*next.entry));
  ++next_waiting_;
  flying_.push_back({.entry = next.entry, .deadline = stages_->deadline(), .begin = begin});
  return true;
}

Result<bool> OverlappedProgram::finish_arrived() {
  bool any = false;
  for (auto flying = flying_.begin(); flying != flying_.end();) {
    // Past its deadline `finish` says who has not come.
    if (!stages_->arrived(*flying->entry) && flying->deadline.check()) {
      ++flying;
      continue;
    }
    LOCKSTEP_RETURN_IF_ERROR(stages_->finish(*flying->entry, flying->deadline));
    end_exchange(*flying->entry, {});
    flying = flying_.erase(flying);
    any = true;
  }
  return any;
}

Status OverlappedProgram::rest() {
  device::Event* computed = next_waiting_ < waiting_.size() ? waiting_[next_waiting_].computed : nullptr;
  if (flying_.empty()) {
    // Parked: only the compute stream can bring anything new.
    return stages_->wait_for(computed != nullptr ? *computed : *checkpoints_.front());
  }
  const Duration nap = std::clamp((SteadyClock::instance().now() - flying_.front().begin) / kNapShare, kNapMin, kNapMax);
  if (computed != nullptr) {
    static_cast<void>(computed->reached_within(nap));
  } else {
    std::this_thread::sleep_for(nap);  // tidy-ok: MPI offers nothing to block on; between two looks of a loop with deadlines
  }
  return {};
}

}  // namespace lockstep::scheduler
