#include "device/cuda/ops/staging.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

namespace lockstep::device::cuda {

namespace {

/// A launch that is not done after this long will never be: the device hangs.
constexpr Duration kReadLimit = std::chrono::seconds(60);
constexpr std::size_t kSlotBytesMin = 4096;

std::size_t padded(std::size_t bytes) {
  return (bytes + Staging::kAlignment - 1) / Staging::kAlignment * Staging::kAlignment;
}

}  // namespace

Staging::Staging(std::shared_ptr<const CudaContext> context, DeviceMemory& memory) : context_(std::move(context)), memory_(&memory) {
  std::ranges::generate(slots_, [this] { return std::make_unique<Slot>(context_); });
}

void Staging::copy(CudaStream& stream, std::span<const std::span<const std::byte>> arrays, std::span<const void*> addresses) {
  if (Status filled = fill(*slots_[next_ % kSlots], stream, arrays, addresses); !filled) {
    std::ranges::fill(addresses, nullptr);
    stream.note(std::move(filled));
  }
}

Status Staging::fill(Slot& slot, CudaStream& stream, std::span<const std::span<const std::byte>> arrays, std::span<const void*> addresses) {
  std::size_t total = 0;
  for (const std::span<const std::byte> array : arrays) {
    total += padded(array.size());
  }
  if (stream.is_capturing()) {
    return Error{ErrorCode::kInternal, fmt::format("{} bytes of the host for a graph on stream \"{}\" are not in graph inputs: replays would not see new ones",
                                                   total, stream.name())};
  }
  LOCKSTEP_RETURN_IF_ERROR(slot.read.wait(Deadline::after(kReadLimit)));
  if (slot.pinned.bytes() < total) {
    LOCKSTEP_RETURN_IF_ERROR(grow_all(total));
  }
  std::size_t offset = 0;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    std::ranges::copy(arrays[i], slot.pinned.as<std::byte>() + offset);
    addresses[i] = slot.device.as<std::byte>() + offset;
    offset += padded(arrays[i].size());
  }
  if (total == 0) {
    return {};
  }
  return context_->check(cudaMemcpyAsync(slot.device.as<void>(), slot.pinned.as<void>(), total, cudaMemcpyHostToDevice, stream.native()), "cudaMemcpyAsync",
                         stream.name());
}

Status Staging::grow_all(std::size_t bytes) {
  // By powers of two, and all slots: allocating waits for the device, so that a step must not do it, and any slot may be the next one's.
  const std::size_t wanted = std::bit_ceil(std::max(bytes, kSlotBytesMin));
  for (const std::unique_ptr<Slot>& slot : slots_) {
    LOCKSTEP_RETURN_IF_ERROR(slot->read.wait(Deadline::after(kReadLimit)));
    LOCKSTEP_ASSIGN_OR_RETURN(slot->device, memory_->allocate(wanted));
    LOCKSTEP_ASSIGN_OR_RETURN(slot->pinned, allocate_pinned(*context_, wanted));
  }
  return {};
}

void Staging::end(CudaStream& stream) {
  // Without the stream's failure: that is told by the stream, and the slot is free again whatever became of the launch.
  CudaEvent& read = slots_[next_ % kSlots]->read;
  stream.note(read.record(stream.native(), stream.name(), std::nullopt));
  ++next_;
}

}  // namespace lockstep::device::cuda
