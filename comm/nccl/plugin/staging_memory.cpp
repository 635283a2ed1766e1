#include "comm/nccl/plugin/staging_memory.hpp"

#include <bit>
#include <cstdint>

namespace lockstep::comm::nccl {

namespace {

/// Sizes grow by doubling from here, so that a step that is a little larger than the last allocates nothing.
constexpr std::size_t kBytesMin = 4096;

std::size_t rounded(std::size_t bytes) {
  return bytes <= kBytesMin ? kBytesMin : std::bit_ceil(bytes);
}

}  // namespace

Result<std::shared_ptr<const StagingPool>> StagingPool::create(std::shared_ptr<const NcclContext> context) {
  std::shared_ptr<StagingPool> pool(new StagingPool(std::move(context)));
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  LOCKSTEP_RETURN_IF_ERROR(pool->context_->check(cudaGetDevice(&properties.location.id), "cudaGetDevice", {}));
  LOCKSTEP_RETURN_IF_ERROR(pool->context_->check(cudaMemPoolCreate(&pool->pool_, &properties), "cudaMemPoolCreate", {}));
  // Freed memory stays: giving it back to the driver would make the next allocation wait for the whole device.
  std::uint64_t keep_all = UINT64_MAX;
  LOCKSTEP_RETURN_IF_ERROR(
      pool->context_->check(cudaMemPoolSetAttribute(pool->pool_, cudaMemPoolAttrReleaseThreshold, &keep_all), "cudaMemPoolSetAttribute", {}));
  return std::shared_ptr<const StagingPool>(std::move(pool));
}

StagingPool::~StagingPool() {
  if (pool_ != nullptr) {
    static_cast<void>(cudaMemPoolDestroy(pool_));
  }
}

Status DeviceBuffer::reserve(std::size_t bytes) {
  if (bytes <= bytes_) {
    return {};
  }
  release();
  void* data = nullptr;
  LOCKSTEP_RETURN_IF_ERROR(
      pool_->context().check(cudaMallocFromPoolAsync(&data, rounded(bytes), pool_->native(), stream_), "cudaMallocFromPoolAsync", "staging"));
  data_ = static_cast<std::byte*>(data);
  bytes_ = rounded(bytes);
  return {};
}

void DeviceBuffer::release() {
  if (data_ != nullptr) {
    static_cast<void>(cudaFreeAsync(data_, stream_));
  }
  data_ = nullptr;
  bytes_ = 0;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) {
    static_cast<void>(cudaFreeHost(data_));
  }
}

Status PinnedBuffer::reserve(const NcclContext& context, std::size_t bytes) {
  if (bytes <= bytes_) {
    return {};
  }
  void* data = nullptr;
  LOCKSTEP_RETURN_IF_ERROR(context.check(cudaHostAlloc(&data, rounded(bytes), cudaHostAllocDefault), "cudaHostAlloc", "staging"));
  if (data_ != nullptr) {
    static_cast<void>(cudaFreeHost(data_));
  }
  data_ = static_cast<std::byte*>(data);
  bytes_ = rounded(bytes);
  return {};
}

}  // namespace lockstep::comm::nccl
