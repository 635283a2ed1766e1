#include <fmt/format.h>

#include "lockstep/model/weights.hpp"

namespace lockstep::model {

namespace {

/// The gated feed-forward network that dense layers and experts share.
void add_feed_forward(std::vector<TensorRequirement>& tensors, const std::string& prefix, std::int64_t width, std::int64_t hidden) {
  tensors.push_back({prefix + "gate_proj.weight", {width, hidden}});
  tensors.push_back({prefix + "up_proj.weight", {width, hidden}});
  tensors.push_back({prefix + "down_proj.weight", {hidden, width}});
}

void add_attention(std::vector<TensorRequirement>& tensors, const std::string& layer, const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t query_width = std::int64_t{config.query_heads} * config.head_size;
  const std::int64_t kv_width = std::int64_t{config.kv_heads} * config.head_size;
  tensors.push_back({layer + "input_layernorm.weight", {hidden}});
  tensors.push_back({layer + "self_attn.q_proj.weight", {query_width, hidden}});
  tensors.push_back({layer + "self_attn.k_proj.weight", {kv_width, hidden}});
  tensors.push_back({layer + "self_attn.v_proj.weight", {kv_width, hidden}});
  tensors.push_back({layer + "self_attn.o_proj.weight", {hidden, query_width}});
  tensors.push_back({layer + "self_attn.q_norm.weight", {config.head_size}});
  tensors.push_back({layer + "self_attn.k_norm.weight", {config.head_size}});
  tensors.push_back({layer + "post_attention_layernorm.weight", {hidden}});
}

}  // namespace

std::vector<TensorRequirement> required_tensors(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  std::vector<TensorRequirement> tensors;
  tensors.push_back({"model.embed_tokens.weight", {config.vocabulary_size, hidden}});
  for (std::int32_t index = 0; index < config.layer_count; ++index) {
    const std::string layer = fmt::format("model.layers.{}.", index);
    add_attention(tensors, layer, config);
    if (config.layer_is_sparse[static_cast<std::size_t>(index)] == 0) {
      add_feed_forward(tensors, layer + "mlp.", config.dense_width, hidden);
      continue;
    }
    tensors.push_back({layer + "mlp.gate.weight", {config.expert_count, hidden}});
    for (std::int32_t expert = 0; expert < config.expert_count; ++expert) {
      add_feed_forward(tensors, fmt::format("{}mlp.experts.{}.", layer, expert), config.expert_width, hidden);
    }
  }
  tensors.push_back({"model.norm.weight", {hidden}});
  // With tied embeddings the head is the embedding: a file that stores it anyway is not read.
  if (!config.tied_embeddings) {
    tensors.push_back({"lm_head.weight", {config.vocabulary_size, hidden}});
  }
  return tensors;
}

Status check_weights(WeightSource& source, const ModelConfig& config) {
  for (const TensorRequirement& required : required_tensors(config)) {
    LOCKSTEP_RETURN_IF_ERROR(source.check(required.name, required.shape));
  }
  return {};
}

}  // namespace lockstep::model
