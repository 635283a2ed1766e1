// WeightMemory: where packed weights lie.
#pragma once

#include <cstddef>

#include "lockstep/device/device.hpp"

namespace lockstep::device::host {

/// Packs weights one behind the other into large pieces of memory on huge pages: a step reads all of them, and with pages of 4 KiB spends a fifth of its time
/// on looking up addresses (measured: 13 GB/s instead of 16 on one core, 14 instead of 31 on two).
/// Ownership  each buffer keeps its piece alive; a piece goes with its last buffer.      Threads  `allocate` one at a time; buffers are freed by any.
class WeightMemory {
 public:
  WeightMemory() = default;
  ~WeightMemory();
  WeightMemory(const WeightMemory&) = delete;
  WeightMemory& operator=(const WeightMemory&) = delete;

  /// Zeroed, aligned to a cache line.      Errors  kResourceExhausted.
  [[nodiscard]] Result<Buffer> allocate(std::size_t bytes);

 private:
  std::byte* piece_ = nullptr;  ///< the one being filled
  std::size_t used_ = 0;        ///< bytes of it
};

}  // namespace lockstep::device::host
