// Launches of the kernels: grids and blocks are chosen here; pointers are the device's. Nothing is launched for no rows.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

#include "device/cuda/kernels/attention_arguments.hpp"
#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/token_sampler.hpp"

namespace lockstep::device::cuda {

[[nodiscard]] cudaError_t launch_embed(cudaStream_t stream, const std::int32_t* token_ids, const BFloat16* table, std::int64_t rows, std::int64_t hidden,
                                       float* out);
[[nodiscard]] cudaError_t launch_gather(cudaStream_t stream, const BFloat16* x, const std::int32_t* index, std::int64_t rows, std::int64_t width,
                                        BFloat16* out);
[[nodiscard]] cudaError_t launch_gather(cudaStream_t stream, const float* x, const std::int32_t* index, std::int64_t rows, std::int64_t width, float* out);
[[nodiscard]] cudaError_t launch_rms_norm(cudaStream_t stream, const float* x, const float* weight, float epsilon, std::int64_t rows, std::int64_t hidden,
                                          BFloat16* out);
[[nodiscard]] cudaError_t launch_add(cudaStream_t stream, const float* y, std::int64_t count, float* x);
[[nodiscard]] cudaError_t launch_narrow(cudaStream_t stream, const float* x, std::int64_t count, BFloat16* out);
[[nodiscard]] cudaError_t launch_silu_mul(cudaStream_t stream, const float* gate_up, std::int64_t rows, std::int64_t width, BFloat16* out);
[[nodiscard]] cudaError_t launch_weigh_and_sum(cudaStream_t stream, const BFloat16* expert_rows, const float* weights, std::int64_t rows, int top_k,
                                               std::int64_t hidden, float* out);
[[nodiscard]] cudaError_t launch_route(cudaStream_t stream, const float* logits, std::int64_t rows, int expert_count, int top_k, bool normalize,
                                       std::int32_t* expert_ids, float* weights);
[[nodiscard]] cudaError_t launch_sample(cudaStream_t stream, const TokenChoices& choices, std::int32_t* tokens);
[[nodiscard]] cudaError_t launch_norm_rope_store(cudaStream_t stream, const AttentionArguments& arguments, std::int64_t rows, const float* qkv,
                                                 const float* q_norm, const float* k_norm, const float* cos_sin, float* q_out);
[[nodiscard]] cudaError_t launch_paged_attention(cudaStream_t stream, const AttentionArguments& arguments, std::int64_t rows, const float* q, BFloat16* out);
[[nodiscard]] cudaError_t launch_matmul(cudaStream_t stream, const BFloat16* x, const BFloat16* weight, std::int64_t rows, std::int64_t inputs,
                                        std::int64_t outputs, float* out);
/// `rows` is what all groups have together: it bounds how many tiles one group can have.
[[nodiscard]] cudaError_t launch_grouped_matmul(cudaStream_t stream, const BFloat16* x, const std::int32_t* offsets, const BFloat16* const* weights,
                                                std::int64_t groups, std::int64_t rows, std::int64_t inputs, std::int64_t outputs, float* out);

}  // namespace lockstep::device::cuda
