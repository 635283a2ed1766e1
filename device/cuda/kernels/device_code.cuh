// What all kernels share. The same source is compiled twice: by nvcc for devices, and by the host's compiler for the simulated runtime, whose
// tests/cuda_sim/twins/language.hpp stands for CUDA's language and is included first.
// Kernels keep to what both have: no templates over lanes, shared memory by LOCKSTEP_SHARED, every product with an explicit fmaf or none (no contraction).
#pragma once

#include <cstdint>

#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/kv_cache.hpp"

#ifndef LOCKSTEP_SHARED
/// Memory of one block: LOCKSTEP_SHARED(float, partial, [32]). Undefined at first: the twin poisons it.
#define LOCKSTEP_SHARED(type, name, extent) __shared__ type name extent
#endif

namespace lockstep::device::cuda {

constexpr int kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffU;
/// Threads of a block that works on one row; a multiple of kWarpLanes.
constexpr int kRowThreads = 256;

__device__ inline float widened(BFloat16 x) {
  return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16U);
}

/// Like BFloat16(float): to nearest, ties to even, a NaN stays one.
__device__ inline BFloat16 narrowed(float x) {
  const std::uint32_t word = __float_as_uint(x);
  BFloat16 result;
  if ((word & 0x7fffffffU) > 0x7f800000U) {
    result.bits = static_cast<std::uint16_t>((word >> 16U) | 0x40U);
  } else {
    result.bits = static_cast<std::uint16_t>((word + 0x7fffU + ((word >> 16U) & 1U)) >> 16U);
  }
  return result;
}

/// The same on every lane, by one fixed tree.
__device__ inline float warp_sum(float value) {
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

__device__ inline float warp_max(float value) {
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

/// Of the values of this lane and those below.
__device__ inline int warp_prefix_sum(int value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  for (int distance = 1; distance < kWarpLanes; distance *= 2) {
    const int below = __shfl_sync(kAllLanes, value, lane >= distance ? lane - distance : lane);
    value += lane >= distance ? below : 0;
  }
  return value;
}

/// How many lanes say yes; the same on every lane.
__device__ inline int warp_count(bool yes) {
  int count = yes ? 1 : 0;
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    count += __shfl_xor_sync(kAllLanes, count, distance);
  }
  return count;
}

/// The same on every thread; all of the block call it. The warps' sums are added in order.
__device__ inline float block_sum(float value) {
  LOCKSTEP_SHARED(float, partial, [kWarpLanes]);
  const float mine = warp_sum(value);
  if (threadIdx.x % kWarpLanes == 0) {
    partial[threadIdx.x / kWarpLanes] = mine;
  }
  __syncthreads();
  float total = 0.0F;
  for (unsigned warp = 0; warp < blockDim.x / kWarpLanes; ++warp) {
    total += partial[warp];
  }
  __syncthreads();  // the next call writes `partial` again
  return total;
}

}  // namespace lockstep::device::cuda
