// Top-k routing: one warp a row.
#pragma once

#include "device/cuda/kernels/ordering.cuh"

namespace lockstep::device::cuda {

/// Softmax over all experts, the `top_k` (at most kWarpLanes) largest, written in ascending id. A NaN counts as the smallest, so that ids stay valid.
__global__ void route_kernel(const float* logits, int expert_count, int top_k, bool normalize, std::int32_t* expert_ids, float* weights) {
  const float* row = logits + static_cast<std::int64_t>(blockIdx.x) * expert_count;
  const int lane = static_cast<int>(threadIdx.x);
  float last_value = INFINITY;
  int last_id = -1;
  float my_value = 0.0F;  // of the lane-th chosen
  int my_id = expert_count;
  float largest = 0.0F;
  for (int j = 0; j < top_k; ++j) {
    // The first that comes after the one chosen last.
    float value = -INFINITY;
    int id = expert_count;
    for (int e = lane; e < expert_count; e += kWarpLanes) {
      const float logit = row[e] == row[e] ? row[e] : -INFINITY;
      if (comes_before(last_value, last_id, logit, e) && comes_before(logit, e, value, id)) {
        value = logit;
        id = e;
      }
    }
    warp_first(value, id);
    last_value = value;
    last_id = id;
    largest = j == 0 ? value : largest;
    if (lane == j) {
      my_value = value;
      my_id = id;
    }
  }
  float sum = 0.0F;
  for (int e = lane; e < expert_count; e += kWarpLanes) {
    sum += expf(row[e] - largest);
  }
  const float total = warp_sum(sum);
  float weight = lane < top_k ? expf(my_value - largest) / total : 0.0F;
  const float chosen = warp_sum(weight);
  weight = normalize ? weight / chosen : weight;
  int place = 0;  // how many of the chosen have a lower id
  for (int j = 0; j < top_k; ++j) {
    place += __shfl_sync(kAllLanes, my_id, j) < my_id ? 1 : 0;
  }
  if (lane < top_k) {
    expert_ids[static_cast<std::int64_t>(blockIdx.x) * top_k + place] = my_id;
    weights[static_cast<std::int64_t>(blockIdx.x) * top_k + place] = weight;
  }
}

}  // namespace lockstep::device::cuda
