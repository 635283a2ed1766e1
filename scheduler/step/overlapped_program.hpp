// OverlappedProgram: runs a step program whose micro-batches overlap: stages on a compute stream, exchanges on the calling thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/core/deadline.hpp"
#include "lockstep/device/device.hpp"
#include "scheduler/step/step_program.hpp"

namespace lockstep::scheduler {

/// What an OverlappedProgram asks of the step's owner.      Threads  the calling one; what `enqueue` puts on the stream runs on the stream's.
class OverlappedStages {
 public:
  virtual ~OverlappedStages() = default;
  OverlappedStages(const OverlappedStages&) = delete;
  OverlappedStages& operator=(const OverlappedStages&) = delete;
  virtual void enqueue(const ProgramEntry& entry, device::Stream& compute) = 0;
  /// Whether the host reads what the stage before this exchange computes; else it starts as soon as that is enqueued.
  [[nodiscard]] virtual bool needs_result(const ProgramEntry& entry) const = 0;
  /// Waits for the compute stream, for as long as that may take.
  [[nodiscard]] virtual Status wait_for(device::Event& event) = 0;
  [[nodiscard]] virtual Status wait_for(device::Stream& stream) = 0;
  /// Starts the entry's exchange, without waiting for anyone. Its data are there.
  [[nodiscard]] virtual Status start(const ProgramEntry& entry) = 0;
  /// One look, which moves exchanges on; true when `finish` would not wait.
  [[nodiscard]] virtual bool arrived(const ProgramEntry& entry) = 0;
  [[nodiscard]] virtual Status finish(const ProgramEntry& entry, const Deadline& deadline) = 0;
  /// Of an exchange that starts now.
  [[nodiscard]] virtual Deadline deadline() const = 0;

 protected:
  OverlappedStages() = default;
};

/// The calling thread makes all calls to MPI, and so no other does. It starts exchanges in the program's order as soon as their data are computed, several in
/// flight, ends each as soon as it has come, and tells the compute stream by a signal. With nothing in flight it sleeps until data are computed; else it
/// looks again after a nap, which is short against what the oldest exchange has taken so far: MPI offers nothing to block on, and a thread that spins would
/// take a core from the stages.
/// Ownership  the compute stream, its events and signals.      Threads  one.      Cost  no allocation after `create`.
class OverlappedProgram {
 public:
  /// For programs of up to `entries_max` entries, run by the thread that calls this: it is set up to wake on time.      Errors  kResourceExhausted: no thread.
  [[nodiscard]] static Result<std::unique_ptr<OverlappedProgram>> create(device::Device& device, std::size_t entries_max, std::int32_t micro_batches_max);
  /// Runs the whole program.      Errors  the first of an exchange, else of the compute stream; nothing runs any more then.
  [[nodiscard]] Status run(std::span<const ProgramEntry> program, OverlappedStages& stages);

 private:
  struct Waiting {
    const ProgramEntry* entry = nullptr;
    device::Event* computed = nullptr;  ///< what it exchanges
  };
  struct Flying {
    const ProgramEntry* entry;
    Deadline deadline;
    TimePoint begin;
  };
  /// What one micro-batch passes.
  struct Points {
    std::array<device::Event*, static_cast<std::size_t>(StepEvent::kCount)> computed{};                  ///< recorded last, by StepEvent
    std::array<std::unique_ptr<device::Signal>, static_cast<std::size_t>(StepEvent::kCount)> exchanged;  ///< where tasks run when their turn comes
    std::array<bool, static_cast<std::size_t>(StepEvent::kCount)> exchanging{};                          ///< by what the exchange records: not finished yet
  };

  OverlappedProgram() = default;
  [[nodiscard]] Points& points_of(const ProgramEntry& entry) { return points_[static_cast<std::size_t>(entry.micro_batch)]; }
  /// Tells who waits for the exchange that it has ended.
  void end_exchange(const ProgramEntry& entry, Status status);
  [[nodiscard]] Status run_all();
  void enqueue_ahead();
  void enqueue(const ProgramEntry& entry, device::Event& recorded);
  /// Whether the entry may be enqueued now: a stream that calls tasks when they are enqueued needs what an exchange brings them by then.
  [[nodiscard]] bool is_due(const ProgramEntry& entry) const;
  [[nodiscard]] bool has_room();
  [[nodiscard]] Result<bool> start_next();
  [[nodiscard]] Result<bool> finish_arrived();
  [[nodiscard]] Status rest();
  [[nodiscard]] device::Signal& signal_of(const ProgramEntry& entry) {
    return *points_[static_cast<std::size_t>(entry.micro_batch)].exchanged[static_cast<std::size_t>(entry.record)];
  }

  bool tasks_run_when_due_ = true;  ///< else when they are enqueued: Device::host_memory
  std::unique_ptr<device::Stream> compute_;
  std::vector<std::unique_ptr<device::Event>> events_;         ///< [entries], by position in the program
  std::vector<Points> points_;                                 ///< [micro-batches]
  std::array<std::unique_ptr<device::Event>, 2> checkpoints_;  ///< the older one first
  // Of the step that runs.
  OverlappedStages* stages_ = nullptr;
  std::span<const ProgramEntry> program_;
  std::size_t next_ = 0;          ///< position of what is enqueued next
  std::size_t ahead_ = 0;         ///< stages enqueued since the last checkpoint
  std::vector<Waiting> waiting_;  ///< exchanges in the program's order; those before next_waiting_ are started
  std::size_t next_waiting_ = 0;
  std::vector<Flying> flying_;  ///< in the order of their start
};

}  // namespace lockstep::scheduler
