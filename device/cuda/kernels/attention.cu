#include "device/cuda/kernels/attention.cuh"
#include "device/cuda/kernels/launch.hpp"

namespace lockstep::device::cuda {

cudaError_t launch_norm_rope_store(cudaStream_t stream, const AttentionArguments& arguments, std::int64_t rows, const float* qkv, const float* q_norm,
                                   const float* k_norm, const float* cos_sin, float* q_out) {
  if (rows > 0) {
    const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(arguments.query_heads + 2 * arguments.kv_heads));
    norm_rope_store_kernel<<<grid, kWarpLanes, 0, stream>>>(arguments, qkv, q_norm, k_norm, cos_sin, q_out);
  }
  return cudaGetLastError();
}

cudaError_t launch_paged_attention(cudaStream_t stream, const AttentionArguments& arguments, std::int64_t rows, const float* q, BFloat16* out) {
  if (rows > 0) {
    const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(arguments.query_heads));
    paged_attention_kernel<<<grid, kAttentionThreads, 0, stream>>>(arguments, q, out);
  }
  return cudaGetLastError();
}

}  // namespace lockstep::device::cuda
