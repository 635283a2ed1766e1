// The paged KV cache as the attention ops see it.
#pragma once

#include <cstdint>
#include <span>

#include "lockstep/core/bfloat16.hpp"

namespace lockstep::device {

/// What one layer keeps for each token. Latent KV and sliding windows are later fields' work.
struct KvCacheSpec {
  int kv_heads = 0;
  int head_size = 0;
  int window = 0;  ///< tokens; 0 is unlimited, the only value supported so far
  [[nodiscard]] constexpr std::int64_t bytes_per_token() const { return std::int64_t{2} * kv_heads * head_size * 2; }
};

/// Tokens in a KV block: the granularity of allocation, and the tile over which attention reduces.
inline constexpr int kKvBlockTokens = 16;

/// One layer's cache; zeroed at allocation, so that the unused tail of a block is never NaN.
/// Layout  values [block_count][kv_heads][kKvBlockTokens][head_size]; keys [block_count][kv_heads][head_size / 2][kKvBlockTokens][2], so that one dimension of
///         a block's tokens is one vector: scores need no sums across lanes.      Ownership  borrowed from the KV cache.
struct KvCacheLayer {
  BFloat16* keys = nullptr;
  BFloat16* values = nullptr;
  std::int32_t block_count = 0;
};

/// Which sequence and position each row of a batch is, and where sequences keep their blocks. Borrowed; a slice of rows is again a PagedRows.
struct PagedRows {
  std::span<const std::int32_t> positions;     ///< [rows], position within its sequence
  std::span<const std::int32_t> sequences;     ///< [rows], index into the block tables
  std::span<const std::int32_t> block_tables;  ///< [sequences][blocks_per_table], block ids, in order of position
  std::int32_t blocks_per_table = 0;

  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(positions.size()); }
  [[nodiscard]] PagedRows slice(std::size_t begin, std::size_t end) const {
    return {positions.subspan(begin, end - begin), sequences.subspan(begin, end - begin), block_tables, blocks_per_table};
  }
};

}  // namespace lockstep::device
