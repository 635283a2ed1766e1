#include "scheduler/batch/kv_cache.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"

namespace lockstep::scheduler {

Result<KvCache> KvCache::create(device::Device& device, std::span<const device::KvCacheSpec> specs, std::int64_t bytes, std::int64_t useful_blocks) {
  std::int64_t block_bytes = 0;
  for (const device::KvCacheSpec& spec : specs) {
    block_bytes += spec.bytes_per_token() * device::kKvBlockTokens;
  }
  const std::int64_t affordable = bytes / std::max<std::int64_t>(block_bytes, 1);
  if (affordable < 1) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--kv-cache-memory is {} bytes, but one block of {} tokens takes {} bytes over {} layers: give at least that", bytes,
                             device::kKvBlockTokens, block_bytes, specs.size())};
  }
  KvCache cache;
  cache.block_count_ = static_cast<std::int32_t>(std::min({affordable, useful_blocks, std::int64_t{std::numeric_limits<std::int32_t>::max()}}));
  for (const device::KvCacheSpec& spec : specs) {
    const std::size_t half = static_cast<std::size_t>(spec.bytes_per_token() / 2) * device::kKvBlockTokens * static_cast<std::size_t>(cache.block_count_);
    Result<device::Buffer> keys = device.allocate(half);
    Result<device::Buffer> values = device.allocate(half);
    if (!keys || !values) {
      const Error& error = keys ? values.error() : keys.error();
      return Error{error.code, fmt::format("the KV cache, {} bytes in {} blocks: {}; give less --kv-cache-memory", block_bytes * cache.block_count_,
                                           cache.block_count_, error.message)};
    }
    cache.layers_.push_back({.keys = keys->as<BFloat16>(), .values = values->as<BFloat16>(), .block_count = cache.block_count_});
    cache.memory_.push_back(std::move(*keys));
    cache.memory_.push_back(std::move(*values));
  }
  cache.free_.resize(static_cast<std::size_t>(cache.block_count_));
  for (std::int32_t i = 0; i < cache.block_count_; ++i) {
    cache.free_[static_cast<std::size_t>(i)] = cache.block_count_ - 1 - i;  // low ids first: touched pages stay few
  }
  return cache;
}

bool KvCache::reserve(std::int32_t count, std::vector<std::int32_t>& blocks) {
  if (count > free_count()) {
    return false;
  }
  for (std::int32_t i = 0; i < count; ++i) {
    blocks.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvCache::release(std::vector<std::int32_t>& blocks) {
  free_.insert(free_.end(), blocks.rbegin(), blocks.rend());
  blocks.clear();
  LOCKSTEP_CHECK(free_count() <= block_count_, "{} free blocks of {}: one was released twice", free_count(), block_count_);
}

}  // namespace lockstep::scheduler
