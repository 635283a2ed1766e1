// Counts what the calling thread takes from the heap.
#pragma once

#include <cstdint>

namespace lockstep::comm::testing {

/// Allocations of this thread by any operator new since it started.
[[nodiscard]] std::uint64_t allocations_of_this_thread();

}  // namespace lockstep::comm::testing
