// Memory and copies.      Source  CUDA Runtime API 13.0: "Memory Management", "Stream Ordered Memory Allocator", "API synchronization behavior".
// Stricter than a device: asynchronous copies take page-locked memory only, what a copy will write is poisoned at once, what it will read must stay as it is.
#include <atomic>
#include <cstring>
#include <cuda_runtime_api.h>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "tests/cuda_sim/runtime/capture/capture.hpp"
#include "tests/cuda_sim/runtime/memory.hpp"
#include "tests/cuda_sim/runtime/settings.hpp"
#include "tests/cuda_sim/runtime/state.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace cuda_sim {
namespace {

/// Work that is the same at each launch.
cudaError_t enqueue_on(cudaStream_t handle, const char* call, std::function<void()> run) {
  return submit(handle, call, {.label = call, .prepare = [run = std::move(run)](Launched) { return run; }});
}

/// Work that a graph could contain on a device, and not here.
cudaError_t enqueue_uncaptured(cudaStream_t handle, const char* call, std::function<void()> run) {
  if (const std::shared_ptr<SimStream> stream = find_stream(handle, call); stream && is_capturing(*stream)) {
    violation(fmt::format("{} in a capture: memory that belongs to a graph is not simulated", call));
  }
  return enqueue_on(handle, call, std::move(run));
}

cudaError_t upload(cudaStream_t handle, void* to, const void* from, std::size_t bytes) {
  constexpr const char* kCall = "cudaMemcpyAsync to the device";
  check_page_locked_range(from, bytes, kCall);
  check_device_range(to, bytes, kCall);
  // In a graph each launch reads it, and not the capture: what is there when it is captured, or was there for the launch before, must not do.
  void* const stale = const_cast<void*>(from);
  const auto prepare = [=](Launched how) -> std::function<void()> {
    check_page_locked_range(from, bytes, kCall);
    return [=, before = checksum(from, bytes)] {
      check_page_locked_range(from, bytes, kCall);
      if (checksum(from, bytes) != before) {
        violation("the host changed memory before the copy from it was done");
      }
      std::memcpy(to, from, bytes);
      if (how == Launched::kByGraph) {
        poison(stale, bytes);
      }
    };
  };
  return submit(handle, kCall, {.label = kCall, .prepare = prepare, .on_capture = [=] { poison(stale, bytes); }});
}

/// By copies that are done.
std::atomic<std::uint64_t>& downloaded_bytes() {
  static std::atomic<std::uint64_t> bytes{0};
  return bytes;
}

cudaError_t download(cudaStream_t handle, void* to, const void* from, std::size_t bytes) {
  constexpr const char* kCall = "cudaMemcpyAsync to the host";
  check_page_locked_range(to, bytes, kCall);
  check_device_range(from, bytes, kCall);
  const auto prepare = [=](Launched) -> std::function<void()> {
    check_page_locked_range(to, bytes, kCall);
    poison(to, bytes);
    return [=] {
      check_page_locked_range(to, bytes, kCall);
      std::memcpy(to, from, bytes);
      downloaded_bytes() += bytes;
    };
  };
  return submit(handle, kCall, {.label = kCall, .prepare = prepare});
}

}  // namespace
}  // namespace cuda_sim

using namespace cuda_sim;  // the API's names are global

/// A pool has no state of its own here: memory is never used twice.
struct CUmemPoolHandle_st {
  std::uint64_t release_threshold = 0;
};

extern "C" {

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  if (properties->allocType != cudaMemAllocationTypePinned || properties->location.type != cudaMemLocationTypeDevice) {
    return failed(cudaErrorInvalidValue);
  }
  *pool = new CUmemPoolHandle_st;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  if (attribute != cudaMemPoolAttrReleaseThreshold) {
    return failed(cudaErrorInvalidValue);
  }
  std::memcpy(&pool->release_threshold, value, sizeof pool->release_threshold);
  return cudaSuccess;
}

/// "The amount of backing memory currently allocated for the mempool": here it never gives any back.
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  if (pool == nullptr || attribute != cudaMemPoolAttrReservedMemCurrent) {
    return failed(cudaErrorInvalidValue);
  }
  const std::uint64_t reserved = device_bytes().used_max;
  std::memcpy(value, &reserved, sizeof reserved);
  return cudaSuccess;
}

/// Of all processes together on a device; here of this one.
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  *total_bytes = settings().memory_bytes;
  *free_bytes = *total_bytes - device_bytes().used;
  return cudaSuccess;
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete pool;
  return cudaSuccess;
}

/// The memory is there for work that comes after this in the stream's order, and not before.
cudaError_t cudaMallocFromPoolAsync(void** data, std::size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  if (pool == nullptr || bytes == 0) {
    return failed(cudaErrorInvalidValue);
  }
  void* const reserved = reserve_device_memory(bytes);
  if (reserved == nullptr) {
    return failed(cudaErrorMemoryAllocation);
  }
  *data = reserved;
  return enqueue_uncaptured(stream, "cudaMallocFromPoolAsync", [reserved] { begin_device_memory(reserved); });
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  if (!is_device_memory(data)) {
    violation("cudaFreeAsync of what is no allocation, or not any more");
  }
  return enqueue_uncaptured(stream, "cudaFreeAsync", [data] { end_device_memory(data); });
}

cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  check_device_range(data, bytes, "cudaMemsetAsync");
  return enqueue_on(stream, "cudaMemsetAsync", [=] { std::memset(data, value, bytes); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) {
    return cudaSuccess;
  }
  switch (kind) {
    case cudaMemcpyHostToDevice:
      return upload(stream, to, from, bytes);
    case cudaMemcpyDeviceToHost:
      return download(stream, to, from, bytes);
    case cudaMemcpyDeviceToDevice:
      check_device_range(to, bytes, "cudaMemcpyAsync on the device");
      check_device_range(from, bytes, "cudaMemcpyAsync on the device");
      return enqueue_on(stream, "cudaMemcpyAsync on the device", [=] { std::memcpy(to, from, bytes); });
    default:
      return failed(cudaErrorInvalidValue);
  }
}

cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned flags) {
  if (const cudaError_t code = refuse_while_capturing(); code != cudaSuccess) {
    return code;  // it may wait for the device
  }
  if (flags != cudaHostAllocDefault) {
    return failed(cudaErrorInvalidValue);
  }
  *data = allocate_page_locked(bytes);
  return *data == nullptr ? failed(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaFreeHost(void* data) {
  if (const cudaError_t code = refuse_while_capturing(); code != cudaSuccess) {
    return code;  // it waits for the device
  }
  return data == nullptr || free_page_locked(data) ? cudaSuccess : failed(cudaErrorInvalidValue);
}

/// Not CUDA's: what copies have brought to the host so far.
std::uint64_t cuda_sim_downloaded_bytes() {
  return downloaded_bytes();
}

}  // extern "C"
