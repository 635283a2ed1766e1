// Memory through which messages of the host go to the device and back.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <memory>

#include "comm/nccl/plugin/nccl_context.hpp"

namespace lockstep::comm::nccl {

/// The pool that all buffers of one communicator on the device are of.
class StagingPool {
 public:
  [[nodiscard]] static Result<std::shared_ptr<const StagingPool>> create(std::shared_ptr<const NcclContext> context);
  ~StagingPool();
  StagingPool(const StagingPool&) = delete;
  StagingPool& operator=(const StagingPool&) = delete;
  [[nodiscard]] cudaMemPool_t native() const { return pool_; }
  [[nodiscard]] const NcclContext& context() const { return *context_; }

 private:
  explicit StagingPool(std::shared_ptr<const NcclContext> context) : context_(std::move(context)) {}
  const std::shared_ptr<const NcclContext> context_;
  cudaMemPool_t pool_ = nullptr;
};

/// Memory of the device, for the work of one stream: it comes and goes in that stream's order, so the host waits for nothing.
class DeviceBuffer {
 public:
  DeviceBuffer(std::shared_ptr<const StagingPool> pool, cudaStream_t stream) : pool_(std::move(pool)), stream_(stream) {}
  ~DeviceBuffer() { release(); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  /// At least so many bytes; what was there is lost. Cost    none where it is large enough already.
  [[nodiscard]] Status reserve(std::size_t bytes);
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  void release();
  const std::shared_ptr<const StagingPool> pool_;  ///< shared with all buffers: it goes with the last
  const cudaStream_t stream_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Page-locked memory of the host.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  /// At least so many bytes; what was there is lost, and no copy may still use it.
  [[nodiscard]] Status reserve(const NcclContext& context, std::size_t bytes);
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace lockstep::comm::nccl
