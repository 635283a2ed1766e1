#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "lockstep/device/kv_cache.hpp"
#include "lockstep/scheduler/engine.hpp"
#include "scheduler/batch/kv_cache.hpp"

namespace lockstep::scheduler {

namespace {

constexpr std::int32_t kMicroBatchesMax = 4;

std::int64_t kv_block_bytes(const model::ModelConfig& config) {
  const device::KvCacheSpec layer{.kv_heads = config.kv_heads, .head_size = config.head_size};
  return layer.bytes_per_token() * device::kKvBlockTokens * config.layer_count;
}

}  // namespace

std::int64_t kv_cache_bytes_used(const EngineOptions& options, const model::ModelConfig& config) {
  const std::int32_t longest = options.max_model_len > 0 ? options.max_model_len : config.context_length;
  const std::int64_t useful_blocks = std::int64_t{options.max_num_seqs} * KvCache::blocks_for(longest);
  const std::int64_t block_bytes = kv_block_bytes(config);
  return std::min(options.kv_cache_bytes / block_bytes, useful_blocks) * block_bytes;
}

Status check_engine_options(const EngineOptions& options, const model::ModelConfig& config, int ranks) {
  if (options.max_num_seqs < 1 || options.max_num_batched_tokens < 1 || options.max_pending < 1) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--max-num-seqs {}, --max-num-batched-tokens {}, --max-pending {}: each must be at least 1",
                                                          options.max_num_seqs, options.max_num_batched_tokens, options.max_pending)};
  }
  // Counts of rows and of (row, expert) pairs of the whole group are int32.
  const std::int64_t pairs_max = std::int64_t{options.max_num_batched_tokens} * ranks * std::max<std::int64_t>(config.experts_per_token, 1);
  if (pairs_max > std::numeric_limits<std::int32_t>::max()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--max-num-batched-tokens is {}: times {} ranks and {} experts per token that is more than {} rows in a step; give less",
                             options.max_num_batched_tokens, ranks, config.experts_per_token, std::numeric_limits<std::int32_t>::max())};
  }
  if (options.max_model_len < 0 || options.max_model_len > config.context_length) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--max-model-len is {}, expected 1 to the model's context of {} tokens", options.max_model_len, config.context_length)};
  }
  if (options.stall_timeout <= Duration::zero() || options.keep_alive_interval <= Duration::zero()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--stall-timeout {} ns, --keep-alive-interval {} ns: each must be more than 0",
                                                          options.stall_timeout.count(), options.keep_alive_interval.count())};
  }
  if (options.kv_cache_bytes < kv_block_bytes(config)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--kv-cache-memory is {} bytes, but one block of {} tokens takes {} bytes over {} layers: give at least that",
                             options.kv_cache_bytes, device::kKvBlockTokens, kv_block_bytes(config), config.layer_count)};
  }
  const bool known = options.micro_batches == 1 || options.micro_batches == 2 || options.micro_batches == kMicroBatchesMax;
  if (!known || (options.micro_batches_auto && options.micro_batches != kMicroBatchesMax)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--micro-batches is {}, expected {}", options.micro_batches, options.micro_batches_auto ? "4, the most, when auto" : "1, 2 or 4")};
  }
  if (options.graph_tokens_max < 1) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--cuda-graph-max-tokens is {}, expected at least 1", options.graph_tokens_max)};
  }
  if (options.gather_rows < 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--gather-rows is {}, expected at least 0", options.gather_rows)};
  }
  return {};
}

}  // namespace lockstep::scheduler
