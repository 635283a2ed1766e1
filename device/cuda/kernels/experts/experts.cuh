// Rows on their way to experts and back: which expert gets which rows is known on the device alone.
#pragma once

#include "device/cuda/kernels/device_code.cuh"
#include "device/cuda/kernels/experts/expert_arguments.hpp"

namespace lockstep::device::cuda {

/// Which of this device's experts computes a choice; -1: none.
__device__ inline std::int32_t local_expert(const ExpertChoices& choices, int choice) {
  const int choices_per_member = choices.rows * choices.top_k;
  const int member = choice / choices_per_member;
  const std::int32_t id = choices.expert_ids[member * choices.id_stride + choice % choices_per_member];
  return id < 0 ? -1 : choices.local_index[static_cast<std::int64_t>(member) * choices.expert_count + id];
}

/// One warp an expert, and one for choices that are nobody's here. Those of expert e get places [offsets[e], offsets[e + 1]), in ascending order; source[place]
/// is the choice, place_of[choice] the place, -1 where there is none. Where a group begins is counted anew by each warp: a lane looks at its part of all
/// choices twice, which are a few thousand, and waits for nobody.
__global__ void group_choices_kernel(ExpertChoices choices, std::int32_t* offsets, std::int32_t* source, std::int32_t* place_of) {
  const int expert = static_cast<int>(blockIdx.x);
  const bool is_nobodys = blockIdx.x + 1 == gridDim.x;
  const int lane = static_cast<int>(threadIdx.x);
  const int count = choices.members * choices.rows * choices.top_k;
  const int part = (count + kWarpLanes - 1) / kWarpLanes;
  const int begin = lane * part < count ? lane * part : count;
  const int end = begin + part < count ? begin + part : count;
  int before = 0;
  int mine = 0;
  for (int i = begin; i < end; ++i) {
    const std::int32_t found = local_expert(choices, i);
    before += found >= 0 && found < expert ? 1 : 0;
    mine += found == expert ? 1 : 0;
  }
  int up_to = mine;  // this lane's, of lanes up to it
  for (int distance = 1; distance < kWarpLanes; distance *= 2) {
    before += __shfl_xor_sync(kAllLanes, before, distance);
    const int theirs = __shfl_sync(kAllLanes, up_to, lane < distance ? lane : lane - distance);
    up_to += lane < distance ? 0 : theirs;
  }
  int place = before + up_to - mine;
  if (lane == 0) {
    offsets[expert] = place;
  }
  for (int i = begin; i < end; ++i) {
    const std::int32_t found = local_expert(choices, i);
    if (is_nobodys && found < 0) {
      place_of[i] = -1;
    } else if (!is_nobodys && found == expert) {
      source[place] = i;
      place_of[i] = place;
      ++place;
    }
  }
}

/// One block a place: grouped[place] = the row that has made the choice. Places from *end on are nobody's.
__global__ void take_rows_kernel(ExpertChoices choices, const std::int32_t* end, const std::int32_t* source, std::int64_t hidden, BFloat16* grouped) {
  if (static_cast<int>(blockIdx.x) >= *end) {
    return;
  }
  const int choices_per_member = choices.rows * choices.top_k;
  const int choice = source[blockIdx.x];
  const BFloat16* from = choices.x + choice / choices_per_member * choices.x_stride + choice % choices_per_member / choices.top_k * hidden;
  BFloat16* to = grouped + static_cast<std::int64_t>(blockIdx.x) * hidden;
  for (std::int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    to[i] = from[i];
  }
}

/// One block a place, before *end: silu_mul_kernel.
__global__ void activate_kernel(const float* gate_up, const std::int32_t* end, std::int64_t width, BFloat16* out) {
  if (static_cast<int>(blockIdx.x) >= *end) {
    return;
  }
  const float* gate = gate_up + static_cast<std::int64_t>(blockIdx.x) * 2 * width;
  const float* up = gate + width;
  BFloat16* to = out + static_cast<std::int64_t>(blockIdx.x) * width;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    to[i] = narrowed(gate[i] / (1.0F + expf(-gate[i])) * up[i]);
  }
}

/// One block a choice: returned[choice] = bfloat16(down[place_of[choice]]). Those that have no place are left as they are.
__global__ void give_rows_kernel(const float* down, const std::int32_t* place_of, std::int64_t hidden, BFloat16* returned) {
  const std::int32_t place = place_of[blockIdx.x];
  if (place < 0) {
    return;
  }
  const float* from = down + place * hidden;
  BFloat16* to = returned + static_cast<std::int64_t>(blockIdx.x) * hidden;
  for (std::int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    to[i] = narrowed(from[i]);
  }
}

/// One block a row: weigh_and_sum_kernel, each expert's row from the member that has computed it. A row without experts is left as it is.
__global__ void weigh_returned_kernel(ReturnedRows rows, std::int64_t hidden, float* out) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * rows.top_k;
  if (rows.expert_ids[first] < 0) {
    return;
  }
  float* to = out + static_cast<std::int64_t>(blockIdx.x) * hidden;
  for (std::int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    float sum = 0.0F;
    for (int j = 0; j < rows.top_k; ++j) {
      const BFloat16* from = rows.returned + rows.computed_by[rows.expert_ids[first + j]] * rows.member_stride + (first + j) * hidden;
      sum = fmaf(rows.weights[first + j], widened(from[i]), sum);
    }
    to[i] += sum;
  }
}

/// One block a row: it and its experts, side by side for all members; rows at no position have none.
__global__ void pack_rows_kernel(const BFloat16* x, const std::int32_t* expert_ids, const std::int32_t* positions, int top_k, std::int64_t hidden,
                                 BFloat16* packed_rows, std::int32_t* packed_ids) {
  const std::int64_t row = blockIdx.x;
  for (std::int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    packed_rows[row * hidden + i] = x[row * hidden + i];
  }
  for (int j = static_cast<int>(threadIdx.x); j < top_k; j += static_cast<int>(blockDim.x)) {
    packed_ids[row * top_k + j] = positions[row] < 0 ? -1 : expert_ids[row * top_k + j];
  }
}

}  // namespace lockstep::device::cuda
