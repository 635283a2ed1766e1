// Memory of the simulated device: out of the host's reach, poisoned before the first write, gone after the free. And the host's page-locked memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_sim {

/// While one lives, this thread is a stream that runs `label`, and memory of the device is open. With none, whoever touches it is the host: a violation.
class DeviceAccess {
 public:
  explicit DeviceAccess(const std::string& label);
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;

 private:
  const char* const outer_;  ///< what the thread ran already; null: nothing
};

/// Addresses for an allocation, which may not be touched yet; null: more than the device has.
[[nodiscard]] void* reserve_device_memory(std::size_t bytes);
/// Bytes in allocations, and the most there ever were: what a pool that keeps everything holds.
struct DeviceBytes {
  std::size_t used = 0;
  std::size_t used_max = 0;
};
[[nodiscard]] DeviceBytes device_bytes();
/// The allocation is there from now on, full of poison. In a stream's order.
void begin_device_memory(void* data);
/// The allocation is gone from now on. In a stream's order.
void end_device_memory(void* data);
/// Whether this is the beginning of an allocation that has not ended.
[[nodiscard]] bool is_device_memory(const void* data);
/// Violation where [data, data + bytes) is not within one allocation: asked when work is enqueued, so the allocation need not have begun.
void check_device_range(const void* data, std::size_t bytes, const char* call);

[[nodiscard]] void* allocate_page_locked(std::size_t bytes);
/// False: it is none.
[[nodiscard]] bool free_page_locked(void* data);
/// Violation where [data, data + bytes) is not within one allocation of page-locked memory.
void check_page_locked_range(const void* data, std::size_t bytes, const char* call);
/// What the host must not have changed until a copy from it is done.
[[nodiscard]] std::uint64_t checksum(const void* data, std::size_t bytes);
/// Fills with poison what must not be read yet.
void poison(void* data, std::size_t bytes);

}  // namespace cuda_sim
