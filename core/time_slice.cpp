#include "lockstep/core/time_slice.hpp"

#include <cstdint>
#include <sys/syscall.h>
#include <unistd.h>

namespace lockstep {

namespace {

/// What sched_getattr(2) and sched_setattr(2) call struct sched_attr, in its first published size. The kernel's header clashes with the C library's.
struct SchedulingAttributes {
  std::uint32_t size;
  std::uint32_t policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime_ns;  ///< of a thread without a deadline: its slice
  std::uint64_t deadline_ns;
  std::uint64_t period_ns;
};
static_assert(sizeof(SchedulingAttributes) == 48);

bool read_own(SchedulingAttributes& attributes) {
  return syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) == 0;
}

}  // namespace

void ask_for_time_slice(std::chrono::nanoseconds slice) {
  SchedulingAttributes attributes{};
  if (!read_own(attributes)) {
    return;
  }
  attributes.size = sizeof attributes;
  attributes.runtime_ns = static_cast<std::uint64_t>(slice.count());
  static_cast<void>(syscall(SYS_sched_setattr, 0, &attributes, 0));
}

std::chrono::nanoseconds own_time_slice() {
  SchedulingAttributes attributes{};
  return std::chrono::nanoseconds(read_own(attributes) ? static_cast<std::int64_t>(attributes.runtime_ns) : 0);
}

}  // namespace lockstep
