// AttentionArguments: what the attention kernels are launched with.
#pragma once

#include <cstdint>

#include "lockstep/core/bfloat16.hpp"

namespace lockstep::device::cuda {

/// The largest head that the kernels take.
inline constexpr int kHeadSizeMax = 512;

/// What both kernels need to find a row's place in the cache; device pointers.
struct AttentionArguments {
  int query_heads = 0;
  int kv_heads = 0;
  int head_size = 0;
  float rms_norm_epsilon = 0.0F;
  const std::int32_t* positions = nullptr;     ///< [rows]
  const std::int32_t* sequences = nullptr;     ///< [rows]
  const std::int32_t* block_tables = nullptr;  ///< [sequences][blocks_per_table]
  std::int32_t blocks_per_table = 0;
  BFloat16* keys = nullptr;    ///< [block_count][kv_heads][head_size / 2][kKvBlockTokens][2]
  BFloat16* values = nullptr;  ///< [block_count][kv_heads][kKvBlockTokens][head_size]
};

}  // namespace lockstep::device::cuda
