// The twin of device/cuda/kernels/product/async_copies.cuh, by hand. A copy is done as late as may be: when its thread waits for it. Until then what it will
// overwrite is poison, so reading too early shows, and so does copying over what others still read.
// Source  PTX ISA 9.0, "cp.async": no order among copies, addresses are multiples of their size; "cp.async.wait_group": all but the last groups are done.
#pragma once

#include <cstdint>
#include <cstring>

#include <fmt/format.h>

#include "device/cuda/kernels/product/async_copies.cuh"
#include "tests/cuda_sim/twins/language.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace lockstep::device::cuda {

class AsyncCopies {
 public:
  AsyncCopies() = default;
  AsyncCopies(const AsyncCopies&) = delete;
  AsyncCopies& operator=(const AsyncCopies&) = delete;
  ~AsyncCopies() {
    if (count_ != 0) {
      ::cuda_sim::violation(
          fmt::format("a thread ends with {} asynchronous copies that it has not waited for: they write to what is no longer its block's", count_));
    }
  }

  void start(std::uint32_t* to, const void* from, bool inside) {
    if (reinterpret_cast<std::uintptr_t>(to) % kCopyBytes != 0 || reinterpret_cast<std::uintptr_t>(from) % kCopyBytes != 0) {
      ::cuda_sim::violation(fmt::format("an asynchronous copy from {} to {}: expected multiples of {}", from, static_cast<const void*>(to), kCopyBytes));
    }
    if (count_ == kCopiesMax) {
      ::cuda_sim::violation(fmt::format("more than {} asynchronous copies of one thread: raise kCopiesMax", kCopiesMax));
    }
    std::memset(to, kPoison, kCopyBytes);
    copies_[count_++] = {.to = to, .from = inside ? from : nullptr, .group = groups_};
  }

  void commit() { ++groups_; }

  template <int kGroups>
  void wait_for_all_but() {
    int left = 0;
    for (int i = 0; i < count_; ++i) {
      const Copy& copy = copies_[i];
      if (copy.group >= groups_ - kGroups) {  // also what is not committed yet
        copies_[left++] = copy;
      } else if (copy.from == nullptr) {
        std::memset(copy.to, 0, kCopyBytes);
      } else {
        std::memcpy(copy.to, copy.from, kCopyBytes);
      }
    }
    count_ = left;
  }

 private:
  struct Copy {
    std::uint32_t* to;
    const void* from;  ///< null: zeros
    int group;
  };
  static constexpr int kCopiesMax = 64;
  static constexpr int kPoison = 0xff;

  Copy copies_[kCopiesMax];
  int count_ = 0;
  int groups_ = 0;
};

}  // namespace lockstep::device::cuda
