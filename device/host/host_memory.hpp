// Memory of the host device: zeroed, aligned to a cache line.
#pragma once

#include <cstddef>

#include "lockstep/device/device.hpp"

namespace lockstep::device::host {

/// At least one cache line, so that data() is never null.      Errors  kResourceExhausted.
[[nodiscard]] Result<Buffer> allocate_zeroed(std::size_t bytes);

}  // namespace lockstep::device::host
