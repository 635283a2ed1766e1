// The order in which numbers are chosen: the larger first, of equal ones the lower id.
#pragma once

#include "device/cuda/kernels/device_code.cuh"

namespace lockstep::device::cuda {

/// Whether (value, id) is chosen before (other_value, other_id): larger first, of equal ones the lower id.
__device__ inline bool comes_before(float value, int id, float other_value, int other_id) {
  return value > other_value || (value == other_value && id < other_id);
}

/// The first, in the order of choice, of the pairs that all lanes have.
__device__ inline void warp_first(float& value, int& id) {
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    const float other_value = __shfl_xor_sync(kAllLanes, value, distance);
    const int other_id = __shfl_xor_sync(kAllLanes, id, distance);
    if (comes_before(other_value, other_id, value, id)) {
      value = other_value;
      id = other_id;
    }
  }
}

}  // namespace lockstep::device::cuda
