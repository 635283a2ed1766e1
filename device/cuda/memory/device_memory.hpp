// Memory of a CUDA device from a stream-ordered pool, and memory of the host that the device copies from and to by itself.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>

#include "device/cuda/cuda_context.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::device::cuda {

/// Ownership  its pool and the stream on which it allocates and frees; outlives its buffers.      Threads  safe.
/// Cost       `allocate` waits for the device: for loading and warm-up, not for steps. What was freed stays in the pool.
class DeviceMemory {
 public:
  /// `limit_bytes`: how much may be allocated at once; 0 is all that there is.
  [[nodiscard]] static Result<std::unique_ptr<DeviceMemory>> create(std::shared_ptr<const CudaContext> context, std::int64_t limit_bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  /// Errors  kResourceExhausted: the limit or the device's memory.
  [[nodiscard]] Result<Buffer> allocate(std::size_t bytes);
  /// Bytes allocated now, and the most there ever were.
  [[nodiscard]] std::int64_t bytes_used() const { return used_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::int64_t bytes_used_max() const { return used_max_.load(std::memory_order_relaxed); }
  /// What the pool holds, buffers or not, as of the last `allocate`.
  [[nodiscard]] std::int64_t bytes_reserved() const { return reserved_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::int64_t bytes_total() const { return total_; }
  /// What may still be allocated: of the limit, or else of what was free when this was made; what others have taken since is not known.
  [[nodiscard]] std::int64_t bytes_free() const { return std::max<std::int64_t>(available_ - bytes_used(), 0); }

 private:
  DeviceMemory(std::shared_ptr<const CudaContext> context, std::int64_t limit_bytes) : context_(std::move(context)), limit_(limit_bytes) {}
  [[nodiscard]] Status open();
  [[nodiscard]] Status reserve(std::size_t bytes);
  [[nodiscard]] Result<void*> take(std::size_t bytes);
  static void release(void* owner, void* data, std::size_t bytes);

  const std::shared_ptr<const CudaContext> context_;
  const std::int64_t limit_;
  std::int64_t total_ = 0;      ///< of the device
  std::int64_t available_ = 0;  ///< of it, when this was made, within the limit
  cudaMemPool_t pool_ = nullptr;
  cudaStream_t stream_ = nullptr;
  std::atomic<std::int64_t> used_{0};
  std::atomic<std::int64_t> used_max_{0};
  std::atomic<std::int64_t> reserved_{0};
};

/// Zeroed, page-locked: the device's copy engine reads and writes it without the host.      Errors  kResourceExhausted.
[[nodiscard]] Result<Buffer> allocate_pinned(const CudaContext& context, std::size_t bytes);

}  // namespace lockstep::device::cuda
