#include "daemon/trace/trace_ring.hpp"

#include <bit>

#include "lockstep/core/check.hpp"

namespace lockstep::daemon {
namespace {

using scheduler::SpanRecord;

constexpr unsigned kWordBits = 16;
constexpr std::uint64_t kWordMask = 0xffffU;

// Layers and micro-batches begin at -1, and a model has fewer than 65,535 layers.
std::uint64_t pack(const SpanRecord& record) {
  return static_cast<std::uint64_t>(record.kind) | static_cast<std::uint64_t>(record.lane) << kWordBits |
         (static_cast<std::uint64_t>(record.layer + 1) & kWordMask) << (2 * kWordBits) |
         (static_cast<std::uint64_t>(record.micro_batch + 1) & kWordMask) << (3 * kWordBits);
}

std::int32_t word(std::uint64_t tags, unsigned index) {
  return static_cast<std::int32_t>((tags >> (index * kWordBits)) & kWordMask);
}

std::int64_t nanoseconds(TimePoint time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

TimePoint time_point(std::int64_t ns) {
  return TimePoint(std::chrono::duration_cast<Duration>(std::chrono::nanoseconds(ns)));
}

}  // namespace

TraceRing::TraceRing(std::size_t capacity) : slots_(capacity), mask_(capacity - 1) {
  LOCKSTEP_CHECK(std::has_single_bit(capacity), "a ring of {} spans, expected a power of 2", capacity);
}

void TraceRing::push(const SpanRecord& record) {
  const std::uint64_t index = written_.load(std::memory_order_relaxed);
  Slot& slot = slots_[index & mask_];
  // Release for each word: a reader that sees a new one sees the 0 before it too, and so knows that its words do not belong together. (A fence would do for
  // all, but ThreadSanitizer knows none.)
  slot.sequence.store(0, std::memory_order_relaxed);
  slot.begin_ns.store(nanoseconds(record.begin), std::memory_order_release);
  slot.end_ns.store(nanoseconds(record.end), std::memory_order_release);
  slot.off_core_ns.store(std::chrono::nanoseconds(record.off_core).count(), std::memory_order_release);
  slot.step.store(record.step, std::memory_order_release);
  slot.tags.store(pack(record), std::memory_order_release);
  slot.sequence.store(index + 1, std::memory_order_release);
  written_.store(index + 1, std::memory_order_release);
}

bool TraceRing::read(std::uint64_t index, SpanRecord& record) const {
  const Slot& slot = slots_[index & mask_];
  if (slot.sequence.load(std::memory_order_acquire) != index + 1) {
    return false;
  }
  record.begin = time_point(slot.begin_ns.load(std::memory_order_acquire));
  record.end = time_point(slot.end_ns.load(std::memory_order_acquire));
  record.off_core = std::chrono::nanoseconds(slot.off_core_ns.load(std::memory_order_acquire));
  record.step = slot.step.load(std::memory_order_acquire);
  const std::uint64_t tags = slot.tags.load(std::memory_order_acquire);
  record.kind = static_cast<scheduler::SpanKind>(word(tags, 0));
  record.lane = static_cast<scheduler::SpanLane>(word(tags, 1));
  record.layer = word(tags, 2) - 1;
  record.micro_batch = word(tags, 3) - 1;
  return slot.sequence.load(std::memory_order_relaxed) == index + 1;
}

bool TraceRing::is_watched(TimePoint now) const {
  const std::int64_t asked = asked_ns_.load(std::memory_order_relaxed);
  return asked != kNever && now - time_point(asked) < kTraceWatched;
}

std::vector<SpanRecord> TraceRing::last_steps(std::int64_t steps) const {
  asked_ns_.store(nanoseconds(SteadyClock::instance().now()), std::memory_order_relaxed);
  const std::int64_t newest = completed_.load(std::memory_order_acquire);
  const std::uint64_t end = written_.load(std::memory_order_acquire);
  std::uint64_t index = end > slots_.size() ? end - slots_.size() : 0;
  std::vector<SpanRecord> found;
  std::int64_t cut = -1;  // the newest step of which a span is lost
  SpanRecord record;
  if (index > 0 && read(index, record)) {
    cut = record.step;  // what came before it may have been of the same step
  }
  for (; index < end; ++index) {
    if (!read(index, record)) {
      // The writer has come round: it overwrites in order, so all that was found is older than what is left.
      found.clear();
      cut = -1;
      while (++index < end && !read(index, record)) {
      }
      if (index >= end) {
        break;
      }
      cut = record.step;
    }
    if (record.step > newest - steps && record.step <= newest && record.step > cut) {
      found.push_back(record);
    }
  }
  return found;
}

}  // namespace lockstep::daemon
