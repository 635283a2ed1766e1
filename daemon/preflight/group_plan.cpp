#include "daemon/preflight/group_plan.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>

#include <fmt/format.h>

#include "daemon/group/group_start.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/kv_cache.hpp"
#include "lockstep/model/weights.hpp"

namespace lockstep::daemon {
namespace {

std::int64_t element_count(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

struct WeightBytes {
  std::int64_t shared = 0;      ///< on every rank
  std::int64_t per_expert = 0;  ///< over all layers
};

WeightBytes count_weights(const model::ModelConfig& config, const Prepared& prepared) {
  const auto packed = [&prepared](std::int64_t elements) {
    const double bytes_per_weight = elements < kLargeMatrixWeights ? prepared.bytes_per_weight : prepared.bytes_per_large_weight;
    return static_cast<std::int64_t>(std::ceil(static_cast<double>(elements) * bytes_per_weight));
  };
  WeightBytes bytes;
  std::int64_t expert_bytes = 0;
  for (const model::TensorRequirement& tensor : model::required_tensors(config)) {
    const std::int64_t elements = element_count(tensor.shape);
    if (tensor.name.find(".mlp.experts.") != std::string::npos) {
      expert_bytes += packed(elements);
    } else if (tensor.shape.size() == 1) {
      bytes.shared += elements * std::int64_t{sizeof(float)};
    } else if (tensor.name == "model.embed_tokens.weight") {
      // Looked up row by row, thus not packed; when it is the output layer too, it is there twice.
      bytes.shared += elements * std::int64_t{sizeof(BFloat16)} + (config.tied_embeddings ? packed(elements) : 0);
    } else {
      bytes.shared += packed(elements);
    }
  }
  bytes.per_expert = config.expert_count == 0 ? 0 : expert_bytes / config.expert_count;
  return bytes;
}

std::string size_text(std::int64_t bytes) {
  constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace

GroupPlan make_group_plan(const Prepared& prepared) {
  const model::ModelConfig& config = prepared.model.config;
  const comm::LaunchInfo& launch = prepared.launch;
  const comm::Placement placement = comm::Placement::contiguous(config.expert_count, comm::GroupView::initial(launch.world_size, 0));
  const WeightBytes weights = count_weights(config, prepared);
  GroupPlan plan;
  for (int rank = 0; rank < launch.world_size; ++rank) {
    const auto experts = placement.experts_of(rank);
    plan.ranks.push_back({.experts = {experts.begin(), experts.end()}, .weight_bytes = weights.shared + weights.per_expert * std::ssize(experts)});
  }
  const device::KvCacheSpec layer{.kv_heads = config.kv_heads, .head_size = config.head_size};
  plan.kv_cache_bytes = scheduler::kv_cache_bytes_used(engine_options(prepared.options), config);
  plan.kv_blocks = plan.kv_cache_bytes / (layer.bytes_per_token() * device::kKvBlockTokens * config.layer_count);
  plan.kv_tokens = plan.kv_blocks * device::kKvBlockTokens;
  // Launchers fill a host with neighbouring ranks.
  const int first = launch.rank - launch.local_rank;
  for (int rank = std::max(first, 0); rank < std::min(first + launch.local_size, launch.world_size); ++rank) {
    const std::int64_t rank_bytes = plan.ranks[static_cast<std::size_t>(rank)].weight_bytes + plan.kv_cache_bytes;
    plan.host_bytes += rank_bytes;
    plan.device_bytes = std::max(plan.device_bytes, rank_bytes);
  }
  return plan;
}

Status check_memory(const GroupPlan& plan, const Prepared& prepared) {
  if (prepared.device_memory_bytes > 0) {
    if (plan.device_bytes <= prepared.device_memory_bytes) {
      return {};
    }
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("weights and KV cache of a rank take {}, and its device has {} free: start more ranks, each holds fewer experts, or give less "
                             "--kv-cache-memory",
                             size_text(plan.device_bytes), size_text(prepared.device_memory_bytes))};
  }
  if (plan.host_bytes <= prepared.host_memory_bytes) {
    return {};
  }
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("weights and KV cache of the {} rank{} on this host take {}, and it has {}: start ranks on more hosts, each holds fewer experts, or give "
                  "less --kv-cache-memory",
                  prepared.launch.local_size, prepared.launch.local_size == 1 ? "" : "s", size_text(plan.host_bytes), size_text(prepared.host_memory_bytes))};
}

std::string ranges_text(const std::vector<std::int32_t>& ascending) {
  std::string text;
  for (std::size_t begin = 0; begin < ascending.size();) {
    std::size_t end = begin;
    while (end + 1 < ascending.size() && ascending[end + 1] == ascending[end] + 1) {
      ++end;
    }
    fmt::format_to(std::back_inserter(text), "{}{}", text.empty() ? "" : ", ", ascending[begin]);
    if (end > begin) {
      fmt::format_to(std::back_inserter(text), "-{}", ascending[end]);
    }
    begin = end + 1;
  }
  return text.empty() ? "none" : text;
}

std::string plan_text(const GroupPlan& plan, const Prepared& prepared) {
  const model::ModelConfig& config = prepared.model.config;
  const DaemonOptions& options = prepared.options;
  std::string text;
  const auto out = std::back_inserter(text);
  const auto sparse = std::ranges::count_if(config.layer_is_sparse, [](std::uint8_t is_sparse) { return is_sparse != 0; });
  fmt::format_to(out, "model    {}: {}, {} layers, {} of them with {} experts of which a token visits {}, vocabulary {}, context {}\n", prepared.model.name,
                 config.architecture, config.layer_count, sparse, config.expert_count, config.experts_per_token, config.vocabulary_size, config.context_length);
  fmt::format_to(out, "group    {} rank{}, started by {}, {} on this host\n", prepared.launch.world_size, prepared.launch.world_size == 1 ? "" : "s",
                 prepared.launch.launcher, prepared.launch.local_size);
  fmt::format_to(out, "device   {} with {}, {} core{} a rank{}\n", options.device, prepared.facts.instructions, prepared.facts.cores_per_rank,
                 prepared.facts.cores_per_rank == 1 ? "" : "s", prepared.facts.bound ? ", bound by the launcher" : "");
  const std::string micro_batches = options.micro_batches == kMicroBatchesAuto ? std::string("1, 2 or 4") : std::to_string(options.micro_batches);
  fmt::format_to(out, "a step   at most {} requests and {} tokens a rank, {} micro-batch{}\n", options.max_num_seqs, options.max_num_batched_tokens,
                 micro_batches, options.micro_batches == 1 ? "" : "es");
  fmt::format_to(out, "KV cache {} a rank: {} blocks of {} tokens, {} tokens\n\n", size_text(plan.kv_cache_bytes), plan.kv_blocks, device::kKvBlockTokens,
                 plan.kv_tokens);
  fmt::format_to(out, "{:<6}{:>12}{:>12}{:>12}  {}\n", "rank", "weights", "KV cache", "together", "experts of each layer");
  for (std::size_t rank = 0; rank < plan.ranks.size(); ++rank) {
    const RankPlan& of = plan.ranks[rank];
    fmt::format_to(out, "{:<6}{:>12}{:>12}{:>12}  {}\n", rank, size_text(of.weight_bytes), size_text(plan.kv_cache_bytes),
                   size_text(of.weight_bytes + plan.kv_cache_bytes), ranges_text(of.experts));
  }
  const bool own_memory = prepared.device_memory_bytes > 0;
  fmt::format_to(out, "\n{} {} of {} for weights and KV cache\n", own_memory ? "each device: its rank takes" : "this host: its ranks take",
                 size_text(own_memory ? plan.device_bytes : plan.host_bytes),
                 size_text(own_memory ? prepared.device_memory_bytes : prepared.host_memory_bytes));
  return text;
}

}  // namespace lockstep::daemon
