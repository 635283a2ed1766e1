// Staging: small arrays of the host (token ids, block tables, offsets) brought to the device for one launch.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/memory/device_memory.hpp"
#include "device/cuda/streams/cuda_event.hpp"
#include "device/cuda/streams/cuda_stream.hpp"

namespace lockstep::device::cuda {

/// A ring of slots, each a page-locked and a device buffer of the same size. A slot is used again when the launch that read it is done.
/// Threads  one at a time.      Cost  one copy for each begin(); waits where kSlots launches are not done yet; allocates when arrays are larger than any
/// before.
class Staging {
 public:
  static constexpr std::size_t kSlots = 32;
  /// Where each array begins in a slot.
  static constexpr std::size_t kAlignment = 16;

  Staging(std::shared_ptr<const CudaContext> context, DeviceMemory& memory);

  /// Copies the arrays to a slot, one after the other, and enqueues its upload. `end` has to be called after the launch that reads them.
  /// Returns the arrays' device addresses, in order; null for all after a failure, which `stream` then has.
  template <std::size_t kCount>
  [[nodiscard]] std::array<const void*, kCount> begin(CudaStream& stream, const std::array<std::span<const std::byte>, kCount>& arrays) {
    std::array<const void*, kCount> addresses{};
    copy(stream, arrays, addresses);
    return addresses;
  }
  void end(CudaStream& stream);

 private:
  struct Slot {
    explicit Slot(std::shared_ptr<const CudaContext> context) : read(std::move(context)) {}
    Buffer pinned;
    Buffer device;
    CudaEvent read;  ///< the launch that reads this slot is done
  };

  void copy(CudaStream& stream, std::span<const std::span<const std::byte>> arrays, std::span<const void*> addresses);
  [[nodiscard]] Status fill(Slot& slot, CudaStream& stream, std::span<const std::span<const std::byte>> arrays, std::span<const void*> addresses);
  [[nodiscard]] Status grow_all(std::size_t bytes);

  const std::shared_ptr<const CudaContext> context_;
  DeviceMemory* memory_;
  std::array<std::unique_ptr<Slot>, kSlots> slots_;
  std::size_t next_ = 0;  ///< of `slots_`, counted on and on
};

}  // namespace lockstep::device::cuda
