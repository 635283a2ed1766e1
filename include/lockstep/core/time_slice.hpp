// Short time slices: for threads that wake often, work for microseconds and keep others waiting until then.
#pragma once

#include <chrono>

namespace lockstep {

/// What threads that pass tokens on ask for: far below the millisecond or more that a thread has by default, and above what they work at a time.
constexpr std::chrono::nanoseconds kShortTimeSlice = std::chrono::microseconds(100);

/// Asks that the calling thread runs for at most so long at a time where others wait for its core. In return it runs soon after it wakes: without, a thread
/// that computes keeps the core until its own slice is over, which the kernel may notice up to a timer tick (4 ms) later. The thread's part of the core stays
/// the same. Needs no privilege. Linux before 6.12, and a sandbox that forbids it, leave things as they are: then the thread wakes later, and nothing else
/// changes. Threads that it starts afterwards have the same.      Threads  any.      Cost  two system calls.      Source  sched_setattr(2), EEVDF's custom
/// slices
void ask_for_time_slice(std::chrono::nanoseconds slice);
/// That of the calling thread; 0 where the kernel does not tell.
[[nodiscard]] std::chrono::nanoseconds own_time_slice();

}  // namespace lockstep
