// The paged KV cache of one rank: its memory per layer, and the free list of its blocks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lockstep/core/result.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::scheduler {

/// A block id is valid in every layer. Ownership  owns the memory.      Threads  the engine's.
class KvCache {
 public:
  /// As many blocks as fit into `bytes`, but no more than `useful_blocks` (what max_num_seqs sequences of full length need).
  /// Errors  kInvalidArgument when not even one block fits, naming the bytes that one takes.
  [[nodiscard]] static Result<KvCache> create(device::Device& device, std::span<const device::KvCacheSpec> specs, std::int64_t bytes,
                                              std::int64_t useful_blocks);

  [[nodiscard]] static std::int32_t blocks_for(std::int64_t tokens) {
    return static_cast<std::int32_t>((tokens + device::kKvBlockTokens - 1) / device::kKvBlockTokens);
  }
  [[nodiscard]] const device::KvCacheLayer& layer(std::int32_t index) const { return layers_[static_cast<std::size_t>(index)]; }
  [[nodiscard]] std::int32_t block_count() const { return block_count_; }
  [[nodiscard]] std::int32_t free_count() const { return static_cast<std::int32_t>(free_.size()); }

  /// Appends `count` blocks to `blocks`; false, and nothing taken, when fewer are free.
  [[nodiscard]] bool reserve(std::int32_t count, std::vector<std::int32_t>& blocks);
  /// Gives all of `blocks` back and empties it.
  void release(std::vector<std::int32_t>& blocks);

 private:
  KvCache() = default;
  std::vector<device::Buffer> memory_;
  std::vector<device::KvCacheLayer> layers_;
  std::vector<std::int32_t> free_;  ///< used as a stack
  std::int32_t block_count_ = 0;
};

}  // namespace lockstep::scheduler
