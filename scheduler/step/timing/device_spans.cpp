#include "scheduler/step/timing/device_spans.hpp"

#include <algorithm>
#include <utility>

#include "scheduler/step/timing/step_spans.hpp"

namespace lockstep::scheduler {

DeviceSpans::DeviceSpans(device::Device& device, std::size_t entries_max) : device_(device), entries_max_(entries_max), slots_(entries_max + 1) {}

void DeviceSpans::start(std::span<const ProgramEntry> program, bool wanted) {
  program_ = program;
  if (!wanted) {
    times_.reset();
    refused_ = false;
    return;
  }
  if (!times_ && !refused_) {
    Result<std::unique_ptr<device::StreamTimes>> made = device_.make_stream_times(2 * (entries_max_ + 1));
    refused_ = !made || *made == nullptr;  // a step can do without: it is not asked for in each
    times_ = refused_ ? nullptr : std::move(*made);
  }
  if (times_) {
    std::ranges::fill(slots_, Slot{});
  }
}

device::StreamMark DeviceSpans::mark(std::size_t slot, Side side) {
  if (!times_) {
    return {};
  }
  (side == kBegin ? slots_[slot].begins : slots_[slot].ends) = true;
  return {*times_, point(slot, side)};
}

void DeviceSpans::is_graph(const ProgramEntry& first) {
  slots_[slot_of(first)].is_graph = true;
}

SpanRecord DeviceSpans::record_of(std::size_t slot) const {
  if (slot == entries_max_) {
    return {.kind = SpanKind::kSample, .lane = SpanLane::kDeviceCompute};
  }
  const ProgramEntry& entry = program_[slot];
  if (slots_[slot].is_graph) {
    return {.kind = SpanKind::kGraph, .lane = SpanLane::kDeviceCompute, .layer = entry.layer, .micro_batch = entry.micro_batch};
  }
  return {.kind = span_kind(entry.stage),
          .lane = entry.stream == StreamRole::kCompute ? SpanLane::kDeviceCompute : SpanLane::kDeviceComm,
          .layer = entry.layer,
          .micro_batch = entry.micro_batch};
}

void DeviceSpans::tell(StepObserver& observer, std::int64_t step) const {
  if (!times_ || !slots_[entries_max_].ends) {
    return;
  }
  for (std::size_t slot = 0; slot <= entries_max_; ++slot) {
    if (!slots_[slot].begins || !slots_[slot].ends) {
      continue;
    }
    // Of two clocks the same moment is known: the device's last point, and when the host saw that it had come there.
    const std::size_t last = point(entries_max_, kEnd);
    const Result<Duration> begin = times_->between(point(slot, kBegin), last);
    const Result<Duration> end = times_->between(point(slot, kEnd), last);
    if (!begin || !end) {
      return;
    }
    SpanRecord record = record_of(slot);
    record.step = step;
    record.begin = done_ - *begin;
    record.end = done_ - *end;
    observer.on_span(record);
  }
}

}  // namespace lockstep::scheduler
