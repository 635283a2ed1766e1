// Matrix products by plain tiles: right for every shape and the same for every number of rows, not fast. The experts' own; and where cuBLASLt is not installed,
// or has no algorithm for a shape, all.
#pragma once

#include "device/cuda/kernels/device_code.cuh"

namespace lockstep::device::cuda {

/// A block computes kTileSide rows times kTileSide columns, a thread one of them, over kTileDepth inputs at a time.
constexpr int kTileSide = 16;
constexpr int kTileDepth = 32;

/// Rows of one tile, ending before `row_end`: out[r][n] = sum over k ascending of x[r][k] * weight[n][k].
__device__ inline void product_tile(const BFloat16* x, const BFloat16* weight, std::int64_t row_begin, std::int64_t row_end, std::int64_t inputs,
                                    std::int64_t outputs, float* out) {
  LOCKSTEP_SHARED(float, x_tile, [kTileSide][kTileDepth]);
  LOCKSTEP_SHARED(float, weight_tile, [kTileSide][kTileDepth + 1]);  // one more: lanes of a column read different banks
  const int column = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(threadIdx.y);
  const std::int64_t first_output = static_cast<std::int64_t>(blockIdx.x) * kTileSide;
  float sum = 0.0F;
  for (std::int64_t k = 0; k < inputs; k += kTileDepth) {
    for (int i = column; i < kTileDepth; i += kTileSide) {
      const bool inside = k + i < inputs;
      x_tile[row][i] = inside && row_begin + row < row_end ? widened(x[(row_begin + row) * inputs + k + i]) : 0.0F;
      weight_tile[row][i] = inside && first_output + row < outputs ? widened(weight[(first_output + row) * inputs + k + i]) : 0.0F;
    }
    __syncthreads();
    for (int i = 0; i < kTileDepth; ++i) {
      sum = fmaf(x_tile[row][i], weight_tile[column][i], sum);
    }
    __syncthreads();
  }
  if (row_begin + row < row_end && first_output + column < outputs) {
    out[(row_begin + row) * outputs + first_output + column] = sum;
  }
}

__global__ void matmul_kernel(const BFloat16* x, const BFloat16* weight, std::int64_t rows, std::int64_t inputs, std::int64_t outputs, float* out) {
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.y) * kTileSide; row < rows; row += static_cast<std::int64_t>(gridDim.y) * kTileSide) {
    product_tile(x, weight, row, rows, inputs, outputs, out);
  }
}

/// All groups by one launch: a group's rows are [offsets[g], offsets[g + 1]), read here and not on the host.
__global__ void grouped_matmul_kernel(const BFloat16* x, const std::int32_t* offsets, const BFloat16* const* weights, std::int64_t inputs, std::int64_t outputs,
                                      float* out) {
  const int group = static_cast<int>(blockIdx.z);
  const std::int64_t end = offsets[group + 1];
  for (std::int64_t row = offsets[group] + static_cast<std::int64_t>(blockIdx.y) * kTileSide; row < end;
       row += static_cast<std::int64_t>(gridDim.y) * kTileSide) {
    product_tile(x, weights[group], row, end, inputs, outputs, out);
  }
}

}  // namespace lockstep::device::cuda
