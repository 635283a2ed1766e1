// The memory of an expert exchange, and what it keeps of each peer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>

#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::comm {

inline constexpr std::size_t kAlignment = 64;  // of messages and rows: a cache line, and what vector code likes to read

constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// Memory made once and not touched before it is used: sizes are for the worst routing, and pages that no step ever reaches stay address space.
/// Values of T need no construction: T is an implicit-lifetime type.
template <typename T>
class Arena {
 public:
  Arena() = default;
  explicit Arena(std::size_t count) : data_(static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{kAlignment}))), count_(count) {}
  /// The same in memory that a device made.
  Arena(device::Buffer memory, std::size_t count) : memory_(std::move(memory)), count_(count) {}
  [[nodiscard]] std::span<T> span() const { return {data_ ? data_.get() : memory_.as<T>(), count_}; }
  [[nodiscard]] std::span<T> span(std::size_t offset, std::size_t count) const { return span().subspan(offset, count); }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete (data, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<T[], Free> data_;
  device::Buffer memory_;  ///< where `data_` is null
  std::size_t count_ = 0;
};

/// For rows that ops read or write, in `device`'s memory for the host; null: in any.
[[nodiscard]] inline Result<Arena<BFloat16>> allocate_values(device::Device* device, std::size_t count) {
  if (device == nullptr) {
    return Arena<BFloat16>(count);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(device::Buffer memory, device->allocate_host(count * sizeof(BFloat16)));
  return Arena<BFloat16>(std::move(memory), count);
}

/// One peer's part of an exchange, as source or as destination.
struct Peer {
  std::int32_t experts = 0;      ///< experts that one side computes for the other; fixed
  std::int32_t rows = 0;         ///< in the dispatch message
  std::int32_t pairs = 0;        ///< in the dispatch message
  std::int32_t answers = 0;      ///< rows in the combine message that answers it
  std::int32_t pairs_begin = 0;  ///< first of its pairs among those of all peers
  std::int32_t rows_packed = 0;
  std::int32_t pairs_packed = 0;
  std::size_t first_row = 0;  ///< offset of the rows in the dispatch message
};

}  // namespace lockstep::comm
