// CUDA's language, as far as our kernels use it, for the host's compiler: included before a .cuh file, it makes kernels functions that one thread of a block
// runs.
// Source  CUDA C++ Programming Guide: "Built-in Variables", "Synchronization Functions", "Warp Shuffle Functions".
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tests/cuda_sim/twins/block.hpp"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

#define threadIdx (::cuda_sim::current_thread().index)
#define blockIdx (::cuda_sim::current_thread().block)
#define blockDim (::cuda_sim::current_thread().block_size)
#define gridDim (::cuda_sim::current_thread().grid_size)

/// One object for each thread of the host: it runs a block from beginning to end. Holds poison until the block has written it.
#define LOCKSTEP_SHARED(type, name, extent) \
  static thread_local type name extent;     \
  ::cuda_sim::poison_shared(&name, sizeof(name))

/// Fibers take turns at barriers and shuffles alone.
inline unsigned atomicAdd(unsigned* address, unsigned value) {
  const unsigned before = *address;
  *address = before + value;
  return before;
}

inline void __syncthreads() {
  ::cuda_sim::wait_for_block();
}

inline std::uint32_t __float_as_uint(float value) {
  std::uint32_t word = 0;
  std::memcpy(&word, &value, sizeof word);
  return word;
}

inline float __uint_as_float(std::uint32_t word) {
  float value = 0;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
  static_assert(sizeof(T) == sizeof(std::uint32_t));
  std::uint32_t word = 0;
  std::memcpy(&word, &value, sizeof word);
  word = ::cuda_sim::exchange_in_warp(mask, word, lane);
  std::memcpy(&value, &word, sizeof word);
  return value;
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return __shfl_sync(mask, value, ::cuda_sim::lane_of_current_thread() ^ lanes);
}
