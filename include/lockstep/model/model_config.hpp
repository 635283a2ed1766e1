// ModelConfig: config.json and generation_config.json of a Hugging Face folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lockstep/core/result.hpp"

namespace lockstep::model {

/// What the transformer needs to know, checked: every number is in range and consistent.      Threads  a value.
struct ModelConfig {
  std::string architecture;  ///< "Qwen3MoeForCausalLM"
  std::int32_t vocabulary_size = 0;
  std::int32_t hidden_size = 0;
  std::int32_t layer_count = 0;
  std::int32_t query_heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_size = 0;
  std::int32_t context_length = 0;  ///< max_position_embeddings
  std::int32_t dense_width = 0;     ///< intermediate_size, of dense layers
  std::int32_t expert_count = 0;    ///< 0: all layers are dense
  std::int32_t experts_per_token = 0;
  std::int32_t expert_width = 0;              ///< moe_intermediate_size
  bool normalize_top_k = false;               ///< norm_topk_prob
  std::vector<std::uint8_t> layer_is_sparse;  ///< [layer_count], 1: experts; from mlp_only_layers and decoder_sparse_step
  double rope_theta = 10000.0;
  float rms_norm_epsilon = 1e-6F;
  bool tied_embeddings = false;
  bool attention_bias = false;              ///< refused when true: no supported model has it
  std::vector<std::int32_t> end_token_ids;  ///< generation_config.json's, else config.json's
  std::string source;                       ///< path of config.json, for messages
};

/// Reads config.json (both generations: num_experts + rope_theta, num_local_experts + rope_parameters) and, where it exists, generation_config.json.
/// Errors  kInvalidArgument, kUnsupported: file, key, value found, value expected.
[[nodiscard]] Result<ModelConfig> read_model_config(const std::filesystem::path& folder);

/// A stable hash over every field that changes answers: part of the step guards' configuration hash.
[[nodiscard]] std::uint64_t hash_model_config(const ModelConfig& config);

}  // namespace lockstep::model
