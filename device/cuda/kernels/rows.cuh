// Kernels that work row by row or element by element. A row's result depends on that row alone: one block or warp computes it, in one order.
#pragma once

#include "device/cuda/kernels/device_code.cuh"

namespace lockstep::device::cuda {

/// One block a row: out[r] = table[token_ids[r]].
__global__ void embed_kernel(const std::int32_t* token_ids, const BFloat16* table, std::int64_t hidden, float* out) {
  const BFloat16* from = table + token_ids[blockIdx.x] * hidden;
  float* to = out + static_cast<std::int64_t>(blockIdx.x) * hidden;
  for (std::int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    to[i] = widened(from[i]);
  }
}

/// One block a row, of elements of 2 or 4 bytes: out[i] = x[index[i]].
__global__ void gather_halves_kernel(const BFloat16* x, const std::int32_t* index, std::int64_t width, BFloat16* out) {
  const BFloat16* from = x + index[blockIdx.x] * width;
  BFloat16* to = out + static_cast<std::int64_t>(blockIdx.x) * width;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    to[i] = from[i];
  }
}

__global__ void gather_floats_kernel(const float* x, const std::int32_t* index, std::int64_t width, float* out) {
  const float* from = x + index[blockIdx.x] * width;
  float* to = out + static_cast<std::int64_t>(blockIdx.x) * width;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    to[i] = from[i];
  }
}

/// One block a row.
__global__ void rms_norm_kernel(const float* x, const float* weight, float epsilon, std::int64_t hidden, BFloat16* out) {
  const float* row = x + static_cast<std::int64_t>(blockIdx.x) * hidden;
  BFloat16* to = out + static_cast<std::int64_t>(blockIdx.x) * hidden;
  float squares = 0.0F;
  for (std::int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    squares = fmaf(row[i], row[i], squares);
  }
  const float scale = 1.0F / sqrtf(block_sum(squares) / static_cast<float>(hidden) + epsilon);
  for (std::int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    to[i] = narrowed(row[i] * scale * weight[i]);
  }
}

__global__ void add_kernel(const float* y, std::int64_t count, float* x) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    x[i] += y[i];
  }
}

__global__ void narrow_kernel(const float* x, std::int64_t count, BFloat16* out) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    out[i] = narrowed(x[i]);
  }
}

/// One block a row: out = silu(gate) * up.
__global__ void silu_mul_kernel(const float* gate_up, std::int64_t width, BFloat16* out) {
  const float* gate = gate_up + static_cast<std::int64_t>(blockIdx.x) * 2 * width;
  const float* up = gate + width;
  BFloat16* to = out + static_cast<std::int64_t>(blockIdx.x) * width;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    to[i] = narrowed(gate[i] / (1.0F + expf(-gate[i])) * up[i]);
  }
}

/// One block a row: the token's expert rows are summed in expert order, whichever rank computed them.
__global__ void weigh_and_sum_kernel(const BFloat16* expert_rows, const float* weights, int top_k, std::int64_t hidden, float* out) {
  const std::int64_t row = blockIdx.x;
  const BFloat16* from = expert_rows + row * top_k * hidden;
  const float* weight = weights + row * top_k;
  float* to = out + row * hidden;
  for (std::int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    float sum = 0.0F;
    for (int j = 0; j < top_k; ++j) {
      sum = fmaf(weight[j], widened(from[j * hidden + i]), sum);
    }
    to[i] += sum;
  }
}

}  // namespace lockstep::device::cuda
