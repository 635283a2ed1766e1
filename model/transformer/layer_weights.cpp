#include "model/transformer/layer_weights.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "model/transformer/host_access.hpp"

namespace lockstep::model {

namespace {

float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16U;
  const std::uint32_t exponent = (bits >> 10U) & 0x1fU;
  const std::uint32_t fraction = bits & 0x3ffU;
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t wide_exponent = exponent == 31 ? 255U : exponent + 112U;
  return std::bit_cast<float>(sign | (wide_exponent << 23U) | (fraction << 13U));
}

/// Element `index` of an unaligned tensor as float.
float element(const TensorView& view, std::size_t index) {
  if (view.type == device::DataType::kFloat32) {
    float value = 0;
    std::memcpy(&value, view.data.data() + index * 4, 4);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, view.data.data() + index * 2, 2);
  if (view.type == device::DataType::kFloat16) {
    return half_to_float(bits);
  }
  BFloat16 value;
  value.bits = bits;
  return static_cast<float>(value);
}

/// The parts of one product may differ in type: then all become float32.
void append_as_float(const TensorView& view, std::vector<std::byte>& out) {
  const std::size_t count = view.data.size() / device::data_type_bytes(view.type);
  const std::size_t begin = out.size();
  out.resize(begin + count * 4);
  for (std::size_t i = 0; i < count; ++i) {
    const float value = element(view, i);
    std::memcpy(out.data() + begin + i * 4, &value, 4);
  }
}

/// How long a micro-batch of experts should take: short against --stall-timeout, long enough for the disk to be ahead.
constexpr double kPackingTargetMs = 100;
constexpr std::int32_t kExpertsAtOnceMax = 32;

constexpr std::array<std::string_view, 3> kExpertTensors{".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"};

}  // namespace

WeightLoader::WeightLoader(const ModelConfig& config, WeightSource& source, device::Device& device, device::Ops& ops, const Watch* watch,
                           MemoryProbe memory_probe)
    : config_(config),
      source_(source),
      device_(device),
      ops_(ops),
      watch_(watch),
      packing_(AdaptiveMicroBatchOptions{.initial_micro_batch = 1,
                                         .target_time_ms = kPackingTargetMs,
                                         .max_micro_batch = kExpertsAtOnceMax,
                                         .memory_probe = std::move(memory_probe),
                                         .narrow_forward_context = false}) {}

Result<TensorView> WeightLoader::tensor(const std::string& name, std::vector<std::int64_t> shape) {
  if (watch_ != nullptr) {
    LOCKSTEP_RETURN_IF_ERROR(watch_->failure());
  }
  return source_.tensor(name, shape);
}

Result<device::Buffer> WeightLoader::load_vector(const std::string& name, std::int64_t size) {
  LOCKSTEP_ASSIGN_OR_RETURN(const TensorView view, tensor(name, {size}));
  return make_filled<float>(device_, ops_, 1, size, [&](std::int64_t /*first_row*/, std::int64_t /*rows*/, float* to) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
      to[i] = element(view, i);
    }
  });
}

Result<device::Buffer> WeightLoader::load_embedding() {
  LOCKSTEP_ASSIGN_OR_RETURN(const TensorView view, tensor("model.embed_tokens.weight", {config_.vocabulary_size, config_.hidden_size}));
  const auto hidden = static_cast<std::size_t>(config_.hidden_size);
  return make_filled<BFloat16>(device_, ops_, config_.vocabulary_size, config_.hidden_size, [&](std::int64_t first_row, std::int64_t rows, BFloat16* to) {
    const std::size_t first = static_cast<std::size_t>(first_row) * hidden;
    const std::size_t count = static_cast<std::size_t>(rows) * hidden;
    if (view.type == device::DataType::kBFloat16) {
      std::memcpy(to, view.data.data() + first * sizeof(BFloat16), count * sizeof(BFloat16));
      return;
    }
    for (std::size_t i = 0; i < count; ++i) {
      to[i] = BFloat16(element(view, first + i));
    }
  });
}

Result<device::WeightHandle> WeightLoader::load_matrix(std::span<const Part> parts, std::int64_t columns) {
  std::int64_t rows = 0;
  if (parts.size() == 1) {  // the common large case needs no copy
    LOCKSTEP_ASSIGN_OR_RETURN(const TensorView view, tensor(parts[0].name, {parts[0].rows, columns}));
    return ops_.pack_weight({.type = view.type, .data = view.data.data(), .rows = parts[0].rows, .columns = columns});
  }
  joined_.clear();
  bool same_type = true;
  device::DataType type = device::DataType::kFloat32;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(const TensorView view, tensor(parts[i].name, {parts[i].rows, columns}));
    same_type = same_type && (i == 0 || view.type == type);
    type = view.type;
    joined_.insert(joined_.end(), view.data.begin(), view.data.end());
    rows += parts[i].rows;
  }
  if (!same_type) {
    joined_.clear();
    type = device::DataType::kFloat32;
    for (const Part& part : parts) {
      LOCKSTEP_ASSIGN_OR_RETURN(const TensorView view, tensor(part.name, {part.rows, columns}));
      append_as_float(view, joined_);
    }
  }
  return ops_.pack_weight({.type = type, .data = joined_.data(), .rows = rows, .columns = columns});
}

Status WeightLoader::load_feed_forward(const std::string& prefix, std::int64_t width, LayerWeights& weights) {
  const std::array gate_up{Part{prefix + ".gate_proj.weight", width}, Part{prefix + ".up_proj.weight", width}};
  LOCKSTEP_ASSIGN_OR_RETURN(device::WeightHandle gate_up_weight, load_matrix(gate_up, config_.hidden_size));
  const std::array down{Part{prefix + ".down_proj.weight", config_.hidden_size}};
  LOCKSTEP_ASSIGN_OR_RETURN(device::WeightHandle down_weight, load_matrix(down, width));
  weights.gate_up.push_back(std::move(gate_up_weight));
  weights.down.push_back(std::move(down_weight));
  return {};
}

Status WeightLoader::load_experts(const std::string& prefix, std::span<const std::int32_t> experts, LayerWeights& weights) {
  const auto expert_prefix = [&prefix](std::int32_t expert) { return fmt::format("{}.mlp.experts.{}", prefix, expert); };
  packing_.reset(static_cast<std::int32_t>(experts.size()));
  for (const MicroBatchInfo& micro_batch : packing_.iterate()) {
    const std::span<const std::int32_t> together = experts.subspan(static_cast<std::size_t>(micro_batch.start), static_cast<std::size_t>(micro_batch.size));
    for (const std::int32_t expert : together) {
      for (const std::string_view tensor : kExpertTensors) {
        source_.will_need(fmt::format("{}{}", expert_prefix(expert), tensor));
      }
    }
    for (const std::int32_t expert : together) {
      LOCKSTEP_RETURN_IF_ERROR(load_feed_forward(expert_prefix(expert), config_.expert_width, weights));  // asks the watch
      for (const std::string_view tensor : kExpertTensors) {
        source_.done_with(fmt::format("{}{}", expert_prefix(expert), tensor));
      }
    }
  }
  return {};
}

Result<LayerWeights> WeightLoader::load_layer(std::int32_t layer, std::span<const std::int32_t> local_experts) {
  const std::string prefix = fmt::format("model.layers.{}", layer);
  const std::string attention = prefix + ".self_attn";
  const std::int64_t query_width = std::int64_t{config_.query_heads} * config_.head_size;
  const std::int64_t kv_width = std::int64_t{config_.kv_heads} * config_.head_size;
  LayerWeights weights;
  weights.name = attention;
  weights.sparse = config_.layer_is_sparse[static_cast<std::size_t>(layer)] != 0;
  LOCKSTEP_ASSIGN_OR_RETURN(weights.input_norm, load_vector(prefix + ".input_layernorm.weight", config_.hidden_size));
  LOCKSTEP_ASSIGN_OR_RETURN(weights.post_norm, load_vector(prefix + ".post_attention_layernorm.weight", config_.hidden_size));
  LOCKSTEP_ASSIGN_OR_RETURN(weights.query_norm, load_vector(attention + ".q_norm.weight", config_.head_size));
  LOCKSTEP_ASSIGN_OR_RETURN(weights.key_norm, load_vector(attention + ".k_norm.weight", config_.head_size));
  const std::array qkv{Part{attention + ".q_proj.weight", query_width}, Part{attention + ".k_proj.weight", kv_width},
                       Part{attention + ".v_proj.weight", kv_width}};
  LOCKSTEP_ASSIGN_OR_RETURN(weights.qkv, load_matrix(qkv, config_.hidden_size));
  const std::array output{Part{attention + ".o_proj.weight", config_.hidden_size}};
  LOCKSTEP_ASSIGN_OR_RETURN(weights.attention_output, load_matrix(output, query_width));
  if (!weights.sparse) {
    LOCKSTEP_RETURN_IF_ERROR(load_feed_forward(prefix + ".mlp", config_.dense_width, weights));
    return weights;
  }
  const std::array router{Part{prefix + ".mlp.gate.weight", config_.expert_count}};
  LOCKSTEP_ASSIGN_OR_RETURN(weights.router, load_matrix(router, config_.hidden_size));
  LOCKSTEP_RETURN_IF_ERROR(load_experts(prefix, local_experts, weights));
  return weights;
}

Result<ModelWeights> WeightLoader::load(std::span<const std::int32_t> local_experts) {
  ModelWeights weights;
  LOCKSTEP_ASSIGN_OR_RETURN(weights.embedding, load_embedding());
  LOCKSTEP_ASSIGN_OR_RETURN(weights.final_norm, load_vector("model.norm.weight", config_.hidden_size));
  for (std::int32_t layer = 0; layer < config_.layer_count; ++layer) {
    LOCKSTEP_ASSIGN_OR_RETURN(LayerWeights loaded, load_layer(layer, local_experts));
    weights.layers.push_back(std::move(loaded));
  }
  const std::array head{Part{config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight", config_.vocabulary_size}};
  LOCKSTEP_ASSIGN_OR_RETURN(weights.head, load_matrix(head, config_.hidden_size));
  return weights;
}

}  // namespace lockstep::model
