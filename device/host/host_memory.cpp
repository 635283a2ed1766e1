#include "device/host/host_memory.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

#include <fmt/format.h>

namespace lockstep::device::host {

namespace {

constexpr std::size_t kAlignment = 64;
/// From here on memory comes straight from the kernel: it is zero already, and untouched pages of a large KV cache cost nothing.
constexpr std::size_t kMappedFrom = std::size_t{1} << 20U;

void release_mapped(void* /*owner*/, void* data, std::size_t bytes) {
  munmap(data, bytes);
}

void release_heap(void* /*owner*/, void* data, std::size_t /*bytes*/) {
  std::free(data);
}

Error out_of_memory(std::size_t bytes) {
  return {ErrorCode::kResourceExhausted,
          fmt::format("cannot allocate {} bytes of host memory: lower --kv-cache-memory or use a machine with more memory", bytes)};
}

}  // namespace

Result<Buffer> allocate_zeroed(std::size_t bytes) {
  if (bytes > PTRDIFF_MAX - kAlignment) {
    return out_of_memory(bytes);
  }
  if (bytes >= kMappedFrom) {
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      return out_of_memory(bytes);
    }
    return Buffer(data, bytes, release_mapped);
  }
  const std::size_t rounded = bytes == 0 ? kAlignment : (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* data = std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) {
    return out_of_memory(bytes);
  }
  std::memset(data, 0, rounded);
  return Buffer(data, bytes, release_heap);
}

}  // namespace lockstep::device::host
