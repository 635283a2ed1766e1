// Copies into a block's memory that run while its threads compute (cp.async, sm_80 and newer). The twin: tests/cuda_sim/twins/async_copies.hpp.
// Source  PTX ISA 9.0, "cp.async", "cp.async.commit_group", "cp.async.wait_group".
#pragma once

#include "device/cuda/kernels/device_code.cuh"

namespace lockstep::device::cuda {

/// Of one copy, from and to addresses that are multiples of it.
constexpr int kCopyBytes = 16;

}  // namespace lockstep::device::cuda

#ifdef __CUDACC__
namespace lockstep::device::cuda {

/// One thread's copies, in groups. What they bring is there for other threads after wait_for_all_but and then __syncthreads.
struct AsyncCopies {
  /// Copies kCopyBytes from the device's memory; or zeros, without reading `from`, when it is not `inside`.
  __device__ void start(std::uint32_t* to, const void* from, bool inside) {
    // L2::128B: the neighbours in a cache line are what this block, or the one that computes beside it, reads next.
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
                 "l"(__cvta_generic_to_global(from)), "r"(inside ? kCopyBytes : 0)
                 : "memory");
  }
  /// Ends a group, which may be empty.
  __device__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  /// Returns when at most the `kGroups` groups committed last are under way.
  template <int kGroups>
  __device__ void wait_for_all_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
  }
};

}  // namespace lockstep::device::cuda
#endif
