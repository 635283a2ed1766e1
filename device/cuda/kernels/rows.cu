#include <algorithm>

#include "device/cuda/kernels/launch.hpp"
#include "device/cuda/kernels/rows.cuh"

namespace lockstep::device::cuda {

namespace {

/// Blocks of an element-wise kernel: enough to fill any device of today, each goes on where the grid ends.
constexpr std::int64_t kBlocksMax = 2048;

unsigned element_blocks(std::int64_t count) {
  return static_cast<unsigned>(std::min((count + kRowThreads - 1) / kRowThreads, kBlocksMax));
}

unsigned row_blocks(std::int64_t rows) {
  return static_cast<unsigned>(rows);
}

}  // namespace

cudaError_t launch_embed(cudaStream_t stream, const std::int32_t* token_ids, const BFloat16* table, std::int64_t rows, std::int64_t hidden, float* out) {
  if (rows > 0) {
    embed_kernel<<<row_blocks(rows), kRowThreads, 0, stream>>>(token_ids, table, hidden, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_gather(cudaStream_t stream, const BFloat16* x, const std::int32_t* index, std::int64_t rows, std::int64_t width, BFloat16* out) {
  if (rows > 0) {
    gather_halves_kernel<<<row_blocks(rows), kRowThreads, 0, stream>>>(x, index, width, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_gather(cudaStream_t stream, const float* x, const std::int32_t* index, std::int64_t rows, std::int64_t width, float* out) {
  if (rows > 0) {
    gather_floats_kernel<<<row_blocks(rows), kRowThreads, 0, stream>>>(x, index, width, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_rms_norm(cudaStream_t stream, const float* x, const float* weight, float epsilon, std::int64_t rows, std::int64_t hidden, BFloat16* out) {
  if (rows > 0) {
    rms_norm_kernel<<<row_blocks(rows), kRowThreads, 0, stream>>>(x, weight, epsilon, hidden, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_add(cudaStream_t stream, const float* y, std::int64_t count, float* x) {
  if (count > 0) {
    add_kernel<<<element_blocks(count), kRowThreads, 0, stream>>>(y, count, x);
  }
  return cudaGetLastError();
}

cudaError_t launch_narrow(cudaStream_t stream, const float* x, std::int64_t count, BFloat16* out) {
  if (count > 0) {
    narrow_kernel<<<element_blocks(count), kRowThreads, 0, stream>>>(x, count, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_silu_mul(cudaStream_t stream, const float* gate_up, std::int64_t rows, std::int64_t width, BFloat16* out) {
  if (rows > 0) {
    silu_mul_kernel<<<row_blocks(rows), kRowThreads, 0, stream>>>(gate_up, width, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_weigh_and_sum(cudaStream_t stream, const BFloat16* expert_rows, const float* weights, std::int64_t rows, int top_k, std::int64_t hidden,
                                 float* out) {
  if (rows > 0) {
    weigh_and_sum_kernel<<<row_blocks(rows), kRowThreads, 0, stream>>>(expert_rows, weights, top_k, hidden, out);
  }
  return cudaGetLastError();
}

}  // namespace lockstep::device::cuda
