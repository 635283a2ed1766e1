// Rotary embedding, cache store, and attention over the paged cache, whose layout is KvCacheLayer's.
#pragma once

#include "device/cuda/kernels/attention_arguments.hpp"
#include "device/cuda/kernels/device_code.cuh"

namespace lockstep::device::cuda {

/// Threads of an attention block: kKvBlockTokens tokens times eight parts of the dimensions.
constexpr int kAttentionParts = 8;
constexpr int kAttentionThreads = kKvBlockTokens * kAttentionParts;
/// Dimensions of a head that one thread sums, at most.
constexpr int kAttentionSums = kHeadSizeMax / kAttentionThreads;

__device__ inline std::int64_t cache_offset(const AttentionArguments& a, std::int64_t row, std::int32_t tile, int kv_head) {
  const std::int64_t block = a.block_tables[static_cast<std::int64_t>(a.sequences[row]) * a.blocks_per_table + tile];
  return (block * a.kv_heads + kv_head) * kKvBlockTokens * a.head_size;
}

/// One warp for each (row, head): heads are the queries', then the keys', then the values'. `q_norm` and `k_norm` may be null: no normalization.
__global__ void norm_rope_store_kernel(AttentionArguments a, const float* qkv, const float* q_norm, const float* k_norm, const float* cos_sin, float* q_out) {
  const std::int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x);
  const int half = a.head_size / 2;
  const float* from = qkv + (row * (a.query_heads + 2 * a.kv_heads) + head) * a.head_size;
  const std::int32_t position = a.positions[row];
  if (position < 0) {
    return;  // a padding row: it belongs to no sequence, and nobody looks at its query
  }
  const std::int64_t token = position % kKvBlockTokens;
  if (head >= a.query_heads + a.kv_heads) {
    BFloat16* to = a.values + cache_offset(a, row, position / kKvBlockTokens, head - a.query_heads - a.kv_heads) + token * a.head_size;
    for (int i = lane; i < a.head_size; i += kWarpLanes) {
      to[i] = narrowed(from[i]);
    }
    return;
  }
  const bool is_query = head < a.query_heads;
  const float* norm = is_query ? q_norm : k_norm;
  float squares = 0.0F;
  for (int i = lane; i < a.head_size; i += kWarpLanes) {
    squares = fmaf(from[i], from[i], squares);
  }
  const float total = warp_sum(squares);
  const float scale = norm == nullptr ? 1.0F : 1.0F / sqrtf(total / static_cast<float>(a.head_size) + a.rms_norm_epsilon);
  const float* cosines = cos_sin + static_cast<std::int64_t>(position) * a.head_size;
  float* q_to = q_out + (row * a.query_heads + head) * a.head_size;
  BFloat16* k_to = is_query ? nullptr : a.keys + cache_offset(a, row, position / kKvBlockTokens, head - a.query_heads);
  for (int i = lane; i < half; i += kWarpLanes) {
    const float first = norm == nullptr ? from[i] : from[i] * scale * norm[i];
    const float second = norm == nullptr ? from[half + i] : from[half + i] * scale * norm[half + i];
    const float rotated_first = fmaf(first, cosines[i], -(second * cosines[half + i]));
    const float rotated_second = fmaf(second, cosines[i], first * cosines[half + i]);
    if (is_query) {
      q_to[i] = rotated_first;
      q_to[half + i] = rotated_second;
    } else {
      k_to[(i / 2 * kKvBlockTokens + token) * 2 + i % 2] = narrowed(rotated_first);
      k_to[((half + i) / 2 * kKvBlockTokens + token) * 2 + (half + i) % 2] = narrowed(rotated_second);
    }
  }
}

/// What the first warp of a block knows of a row's softmax so far; the same on all lanes.
struct SoftmaxState {
  float largest = -INFINITY;
  float total = 0.0F;  ///< of the weights, e^(score - largest)
};

/// Turns the `count` scores of a tile, in parts, into weights; the first warp calls it. Lanes from kKvBlockTokens on do what those below do, and count for
/// nothing. Returns what earlier weights are now too large by.
__device__ inline float weigh_tile(const float (*parts)[kKvBlockTokens], int count, SoftmaxState& state, float* weights) {
  const int lane = static_cast<int>(threadIdx.x);
  const int token = lane % kKvBlockTokens;
  float score = 0.0F;
  for (int p = 0; p < kAttentionParts; ++p) {
    score += parts[p][token];
  }
  const float largest = fmaxf(state.largest, warp_max(token < count ? score : -INFINITY));
  const float shrink = expf(state.largest - largest);
  const float weight = token < count ? expf(score - largest) : 0.0F;
  state.total = fmaf(state.total, shrink, warp_sum(lane < kKvBlockTokens ? weight : 0.0F));
  state.largest = largest;
  if (lane < kKvBlockTokens) {
    weights[token] = weight;
  }
  return shrink;
}

/// One block for each (row, query head); tiles are KV blocks at absolute positions, reduced in order, so that a row's answer does not depend on the batch.
__global__ void paged_attention_kernel(AttentionArguments a, const float* q, BFloat16* out) {
  LOCKSTEP_SHARED(float, query, [kHeadSizeMax]);
  LOCKSTEP_SHARED(float, parts, [kAttentionParts][kKvBlockTokens]);
  LOCKSTEP_SHARED(float, weights, [kKvBlockTokens]);
  LOCKSTEP_SHARED(float, scales, [2]);  // what earlier weights are now too large by; the sum of all weights
  const std::int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (a.query_heads / a.kv_heads);
  const int thread = static_cast<int>(threadIdx.x);
  const int token = thread % kKvBlockTokens;
  const int part = thread / kKvBlockTokens;
  const std::int64_t first = (row * a.query_heads + head) * a.head_size;
  const float scale = 1.0F / sqrtf(static_cast<float>(a.head_size));
  for (int d = thread; d < a.head_size; d += kAttentionThreads) {
    query[d] = q[first + d] * scale;
  }
  const std::int32_t position = a.positions[row];
  if (position < 0) {  // a padding row has nothing to attend to
    for (int d = thread; d < a.head_size; d += kAttentionThreads) {
      out[first + d] = narrowed(0.0F);
    }
    return;
  }
  float sums[kAttentionSums] = {};
  SoftmaxState state;
  __syncthreads();
  for (std::int32_t tile = 0; tile <= position / kKvBlockTokens; ++tile) {
    const std::int64_t offset = cache_offset(a, row, tile, kv_head);
    const int seen = position + 1 - tile * kKvBlockTokens;
    const int count = seen < kKvBlockTokens ? seen : kKvBlockTokens;
    float score = 0.0F;
    if (token < count) {
      for (int pair = part; pair < a.head_size / 2; pair += kAttentionParts) {
        const BFloat16* key = a.keys + offset + (static_cast<std::int64_t>(pair) * kKvBlockTokens + token) * 2;
        score = fmaf(query[2 * pair], widened(key[0]), score);
        score = fmaf(query[2 * pair + 1], widened(key[1]), score);
      }
    }
    parts[part][token] = score;
    __syncthreads();
    if (thread < kWarpLanes) {
      const float shrink = weigh_tile(parts, count, state, weights);
      if (thread == 0) {
        scales[0] = shrink;
        scales[1] = state.total;
      }
    }
    __syncthreads();
    for (int s = 0; s < kAttentionSums; ++s) {
      const int d = thread + s * kAttentionThreads;
      if (d < a.head_size) {
        float sum = sums[s] * scales[0];
        for (int t = 0; t < count; ++t) {
          sum = fmaf(weights[t], widened(a.values[offset + static_cast<std::int64_t>(t) * a.head_size + d]), sum);
        }
        sums[s] = sum;
      }
    }
    __syncthreads();  // the next tile writes what is read here
  }
  for (int s = 0; s < kAttentionSums; ++s) {
    const int d = thread + s * kAttentionThreads;
    if (d < a.head_size) {
      out[first + d] = narrowed(sums[s] / scales[1]);
    }
  }
}

}  // namespace lockstep::device::cuda
