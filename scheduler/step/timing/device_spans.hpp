// DeviceSpans: when a device ran the entries of a step program, for as long as somebody looks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/core/deadline.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/stream_times.hpp"
#include "lockstep/scheduler/step_observer.hpp"
#include "scheduler/step/step_program.hpp"

namespace lockstep::scheduler {

/// Two points for each entry and for sampling. While nobody looks there are none, and nothing is marked.
/// Ownership  the points; borrows the device.      Threads  the step thread's.      Cost  off: a branch an entry. On: two time stamps of the device an entry,
/// and two questions of the driver an entry after the step; no allocation but in the first step that is wanted. The host waits no more often than it does
/// anyway.
class DeviceSpans {
 public:
  DeviceSpans(device::Device& device, std::size_t entries_max);

  /// `program` outlives the step, of which no other is under way. Points are made by the first step that is `wanted`, and destroyed by the first that is not.
  void start(std::span<const ProgramEntry> program, bool wanted);
  /// To be set where the device begins with the entry, and where it has ended; nothing where times are not wanted.
  [[nodiscard]] device::StreamMark begin_of(const ProgramEntry& entry) { return mark(slot_of(entry), kBegin); }
  [[nodiscard]] device::StreamMark end_of(const ProgramEntry& entry) { return mark(slot_of(entry), kEnd); }
  [[nodiscard]] device::StreamMark begin_of_sampling() { return mark(entries_max_, kBegin); }
  /// Behind all of the step, sampling or not: the host's time of it says when the others were.
  [[nodiscard]] device::StreamMark end_of_step() { return mark(entries_max_, kEnd); }
  /// The entry stands for all that is launched as a graph with it.
  void is_graph(const ProgramEntry& first);
  /// Called when the host has seen the device's stream done, the last time at the end of the step.
  void seen_done() {
    if (times_) {
      done_ = SteadyClock::instance().now();
    }
  }

  /// The step's spans, once it has ended; none where the device does not tell its times.
  void tell(StepObserver& observer, std::int64_t step) const;

 private:
  enum Side : std::uint8_t { kBegin = 0, kEnd = 1 };
  struct Slot {
    bool begins = false;
    bool ends = false;
    bool is_graph = false;
  };

  [[nodiscard]] std::size_t slot_of(const ProgramEntry& entry) const { return static_cast<std::size_t>(&entry - program_.data()); }
  [[nodiscard]] static std::size_t point(std::size_t slot, Side side) { return 2 * slot + side; }
  [[nodiscard]] device::StreamMark mark(std::size_t slot, Side side);
  [[nodiscard]] SpanRecord record_of(std::size_t slot) const;

  device::Device& device_;
  const std::size_t entries_max_;
  std::unique_ptr<device::StreamTimes> times_;  ///< null while not wanted, and where the device has none
  bool refused_ = false;                        ///< asked for, and not got
  std::span<const ProgramEntry> program_;
  std::vector<Slot> slots_;  ///< [entries_max + 1], by position in the program, then sampling
  TimePoint done_{};
};

}  // namespace lockstep::scheduler
