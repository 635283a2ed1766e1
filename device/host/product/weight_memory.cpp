#include "device/host/product/weight_memory.hpp"

#include <atomic>
#include <cstdint>
#include <new>
#include <sys/mman.h>

#include "device/host/host_memory.hpp"

namespace lockstep::device::host {

namespace {

/// Pieces begin at multiples of their size, so that a buffer's address tells its piece.
constexpr std::size_t kPieceBytes = std::size_t{64} << 20U;
constexpr std::size_t kCacheLine = 64;
/// Larger ones get memory of their own: what is left of a piece would be wasted.
constexpr std::size_t kLargeBytes = kPieceBytes / 2;

/// The first cache line of a piece.
struct PieceHeader {
  std::atomic<std::int64_t> users;  ///< buffers, and the WeightMemory that fills it
};
static_assert(sizeof(PieceHeader) <= kCacheLine);

void release_piece(std::byte* piece) {
  if (reinterpret_cast<PieceHeader*>(piece)->users.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    munmap(piece, kPieceBytes);
  }
}

void release_buffer(void* /*owner*/, void* data, std::size_t /*bytes*/) {
  // An address's upper bits are its piece.
  auto* at = static_cast<std::byte*>(data);
  release_piece(at - reinterpret_cast<std::uintptr_t>(at) % kPieceBytes);
}

/// Null when there is no memory.
std::byte* map_piece() {
  void* mapped = mmap(nullptr, 2 * kPieceBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    return nullptr;
  }
  auto* begin = static_cast<std::byte*>(mapped);
  const std::size_t before = (kPieceBytes - reinterpret_cast<std::uintptr_t>(begin) % kPieceBytes) % kPieceBytes;
  if (before > 0) {
    munmap(begin, before);
  }
  munmap(begin + before + kPieceBytes, kPieceBytes - before);
  madvise(begin + before, kPieceBytes, MADV_HUGEPAGE);  // a wish: where the kernel has none, small pages do
  ::new (static_cast<void*>(begin + before)) PieceHeader{.users = 1};
  return begin + before;
}

}  // namespace

WeightMemory::~WeightMemory() {
  if (piece_ != nullptr) {
    release_piece(piece_);
  }
}

Result<Buffer> WeightMemory::allocate(std::size_t bytes) {
  if (bytes >= kLargeBytes) {
    LOCKSTEP_ASSIGN_OR_RETURN(Buffer buffer, allocate_zeroed(bytes));
    madvise(buffer.as<void>(), bytes, MADV_HUGEPAGE);
    return buffer;
  }
  const std::size_t rounded = (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
  if (piece_ == nullptr || used_ + rounded > kPieceBytes) {
    std::byte* next = map_piece();
    if (next == nullptr) {
      return allocate_zeroed(bytes);  // smaller, so it may still fit; or says why not
    }
    if (piece_ != nullptr) {
      release_piece(piece_);
    }
    piece_ = next;
    used_ = kCacheLine;
  }
  reinterpret_cast<PieceHeader*>(piece_)->users.fetch_add(1, std::memory_order_relaxed);
  std::byte* data = piece_ + used_;
  used_ += rounded;
  return Buffer(data, bytes, release_buffer);
}

}  // namespace lockstep::device::host
