// Counts what the whole test program allocates through operator new, to show that a call allocates nothing.
#pragma once

#include <cstdint>

namespace lockstep {

/// Allocations so far, of all threads and libraries.
[[nodiscard]] std::int64_t allocation_count();

}  // namespace lockstep
