// A time limit for calls of a library that has none.
#pragma once

#include <functional>

#include "lockstep/core/deadline.hpp"

namespace lockstep::comm {

/// Runs `work` on a thread of its own; true when it returned within `limit`. When it did not, the thread is left behind: `work` must own (by shared_ptr) all
/// that it touches, and the process has to end by _exit, for exit() would tear down libraries under that thread. Cost    a thread's start, about 30 us: for a
/// library's start and end, not for steps.
[[nodiscard]] bool call_within(Duration limit, std::function<void()> work);

}  // namespace lockstep::comm
