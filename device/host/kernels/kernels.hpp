// The table of kernels: everything but oneDNN's products, compiled once per instruction set.
// Here and in the kernels only plain pointers and numbers: an inline function of the standard library, compiled with AVX-512 here and kept by the linker for
// the whole program, would crash a machine without it.
#pragma once

#include <cstdint>

#include "device/host/instruction_set.hpp"
#include "lockstep/core/bfloat16.hpp"

namespace lockstep::device::host {

/// One attention layer's geometry and cache, and which rows to work on.
struct AttentionArguments {
  int query_heads = 0;
  int kv_heads = 0;
  int head_size = 0;  ///< even
  float rms_norm_epsilon = 0;
  std::int64_t rows = 0;
  const std::int32_t* positions = nullptr;     ///< [rows]
  const std::int32_t* sequences = nullptr;     ///< [rows]
  const std::int32_t* block_tables = nullptr;  ///< [sequences][blocks_per_table]
  std::int32_t blocks_per_table = 0;
  BFloat16* keys = nullptr;    ///< [block_count][kv_heads][head_size / 2][kKvBlockTokens][2]
  BFloat16* values = nullptr;  ///< [block_count][kv_heads][kKvBlockTokens][head_size]
};

/// Rows of one sequence that read a block of the cache one after the other, while it is near.
inline constexpr int kAttentionRows = 16;

/// The panel layout of a weight for `panel_product`: [ceil(output / kPanelWidth)][input][kPanelWidth], float32, zeros beyond `output`.
inline constexpr int kPanelWidth = 16;
/// Rows that `panel_product` computes together.
inline constexpr int kPanelRows = 6;

/// Shapes are those of Ops. Each row's result depends on that row alone, bit for bit: reductions have one order, whatever surrounds the row.
struct Kernels {
  void (*widen)(const BFloat16* x, std::int64_t count, float* out);
  void (*narrow)(const float* x, std::int64_t count, BFloat16* out);
  void (*add)(const float* y, std::int64_t count, float* x);
  void (*rms_norm)(const float* x, const float* weight, float epsilon, std::int64_t rows, std::int64_t hidden, BFloat16* out);
  void (*silu_mul)(const float* gate_up, std::int64_t rows, std::int64_t width, BFloat16* out);
  void (*weigh_and_sum)(const BFloat16* expert_rows, const float* weights, std::int64_t rows, int top_k, std::int64_t hidden, float* out);
  void (*route)(const float* logits, std::int64_t rows, int expert_count, int top_k, bool normalize, std::int32_t* expert_ids, float* weights);
  /// `q_norm` and `k_norm` may be null: no normalization.
  void (*norm_rope_store)(const AttentionArguments& arguments, const float* qkv, const float* q_norm, const float* k_norm, const float* cos_sin, float* q_out);
  /// Rows [begin, end), all of one sequence and at most kAttentionRows, for one key-value head and the query heads that share it.
  /// `scratch` [attention_scratch floats], 64-byte aligned.
  void (*attention)(const AttentionArguments& arguments, std::int64_t begin, std::int64_t end, int kv_head, const float* q, float* scratch, BFloat16* out);
  /// How many floats of scratch `attention` needs, whatever the number of rows.
  std::int64_t (*attention_scratch)(int query_heads, int kv_heads, int head_size);
  /// `scratch` [kPanelRows * input].
  void (*panel_product)(const BFloat16* x, const float* panels, std::int64_t rows, std::int64_t input, std::int64_t output, float* scratch, float* out);
};

namespace baseline {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

[[nodiscard]] inline const Kernels& kernels_for(KernelSet set) {
  switch (set) {
    case KernelSet::kAvx512:
      return avx512::kKernels;
    case KernelSet::kAvx2:
      return avx2::kKernels;
    case KernelSet::kBaseline:
      break;
  }
  return baseline::kKernels;
}

}  // namespace lockstep::device::host
