#include "device/cuda/memory/device_memory.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

namespace lockstep::device::cuda {

namespace {

/// What a buffer of no bytes still takes, so that its address is one.
constexpr std::size_t kBytesMin = 64;
constexpr std::string_view kStreamName = "memory";

void release_pinned(void* /*owner*/, void* data, std::size_t /*bytes*/) {
  static_cast<void>(cudaFreeHost(data));  // at exit the runtime may be gone, and the memory with it
}

}  // namespace

Result<std::unique_ptr<DeviceMemory>> DeviceMemory::create(std::shared_ptr<const CudaContext> context, std::int64_t limit_bytes) {
  std::unique_ptr<DeviceMemory> memory(new DeviceMemory(std::move(context), limit_bytes));
  LOCKSTEP_RETURN_IF_ERROR(memory->open());
  return memory;
}

Status DeviceMemory::open() {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
  total_ = static_cast<std::int64_t>(total_bytes);
  available_ = limit_ > 0 ? std::min(limit_, static_cast<std::int64_t>(free_bytes)) : static_cast<std::int64_t>(free_bytes);
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = context_->index();
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaMemPoolCreate(&pool_, &properties), "cudaMemPoolCreate"));
  // Freed memory stays: giving it back to the driver would make the next allocation wait for the whole device.
  std::uint64_t keep_all = UINT64_MAX;
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_all), "cudaMemPoolSetAttribute"));
  return context_->check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags", kStreamName);
}

DeviceMemory::~DeviceMemory() {
  if (stream_ != nullptr) {
    static_cast<void>(cudaStreamSynchronize(stream_));
    static_cast<void>(cudaStreamDestroy(stream_));
  }
  if (pool_ != nullptr) {
    static_cast<void>(cudaMemPoolDestroy(pool_));
  }
}

Status DeviceMemory::reserve(std::size_t bytes) {
  const auto wanted = static_cast<std::int64_t>(std::min<std::size_t>(bytes, INT64_MAX / 2));
  const std::int64_t now = used_.fetch_add(wanted, std::memory_order_relaxed) + wanted;
  if (static_cast<std::size_t>(wanted) < bytes || (limit_ > 0 && now > limit_)) {
    used_.fetch_sub(wanted, std::memory_order_relaxed);
    return Error{ErrorCode::kResourceExhausted,
                 fmt::format("cannot allocate {} bytes on device {} ({}): {} are allocated and the limit is {}", bytes, context_->index(),
                             context_->device_name(), now - wanted, limit_ > 0 ? fmt::format("{} bytes", limit_) : std::string("what it has"))};
  }
  std::int64_t before = used_max_.load(std::memory_order_relaxed);
  while (before < now && !used_max_.compare_exchange_weak(before, now, std::memory_order_relaxed)) {
  }
  return {};
}

Result<void*> DeviceMemory::take(std::size_t bytes) {
  LOCKSTEP_RETURN_IF_ERROR(context_->bind());
  void* data = nullptr;
  if (Status taken = context_->check(cudaMallocFromPoolAsync(&data, bytes, pool_, stream_), "cudaMallocFromPoolAsync", kStreamName); !taken) {
    return Error{taken.error().code, fmt::format("cannot allocate {} bytes: {}", bytes, taken.error().message)};
  }
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaMemsetAsync(data, 0, bytes, stream_), "cudaMemsetAsync", kStreamName));
  // From here on the memory is there for every stream, without an event.
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize", kStreamName));
  std::uint64_t reserved = 0;
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved), "cudaMemPoolGetAttribute"));
  reserved_.store(static_cast<std::int64_t>(reserved), std::memory_order_relaxed);
  return data;
}

Result<Buffer> DeviceMemory::allocate(std::size_t bytes) {
  LOCKSTEP_RETURN_IF_ERROR(reserve(bytes));
  Result<void*> data = take(std::max(bytes, kBytesMin));
  if (!data) {
    used_.fetch_sub(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
    return std::move(data).error();
  }
  return Buffer(*data, bytes, release, this);
}

void DeviceMemory::release(void* owner, void* data, std::size_t bytes) {
  auto& memory = *static_cast<DeviceMemory*>(owner);
  // Its users are done, so the order of our own stream is enough.
  static_cast<void>(memory.context_->bind());
  static_cast<void>(cudaFreeAsync(data, memory.stream_));
  memory.used_.fetch_sub(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
}

Result<Buffer> allocate_pinned(const CudaContext& context, std::size_t bytes) {
  LOCKSTEP_RETURN_IF_ERROR(context.bind());
  if (bytes > PTRDIFF_MAX - kBytesMin) {
    return Error{ErrorCode::kResourceExhausted, fmt::format("cannot allocate {} bytes of page-locked host memory", bytes)};
  }
  void* data = nullptr;
  const std::size_t rounded = (std::max(bytes, kBytesMin) + kBytesMin - 1) / kBytesMin * kBytesMin;
  if (Status taken = context.check(cudaHostAlloc(&data, rounded, cudaHostAllocDefault), "cudaHostAlloc"); !taken) {
    return Error{taken.error().code, fmt::format("cannot allocate {} bytes of page-locked host memory: {}", bytes, taken.error().message)};
  }
  std::memset(data, 0, rounded);
  return Buffer(data, bytes, release_pinned);
}

}  // namespace lockstep::device::cuda
