#include "lockstep/model/model_config.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lockstep/core/hash.hpp"
#include "model/json/json_node.hpp"

namespace lockstep::model {

namespace {

/// The model families that the transformer can run.
constexpr std::array<std::string_view, 1> kArchitectures{"Qwen3MoeForCausalLM"};

constexpr std::size_t kConfigBytesMax = 4U << 20U;

// Limits far above any published model, and low enough that products of two of them, and byte counts of any tensor, fit in 63 bits.
constexpr std::int64_t kVocabularyMax = 1 << 22;
constexpr std::int64_t kHiddenMax = 1 << 16;
constexpr std::int64_t kWidthMax = 1 << 20;
constexpr std::int64_t kLayersMax = 1024;
constexpr std::int64_t kHeadsMax = 1024;
constexpr std::int64_t kHeadSizeMax = 512;
constexpr std::int64_t kContextMax = 1 << 24;
constexpr std::int64_t kExpertsMax = 4096;
constexpr std::int64_t kExpertsOfAllLayersMax = 1 << 18;
constexpr std::size_t kEndTokensMax = 64;

Result<std::int32_t> required_integer(const JsonNode& root, std::string_view key, std::int64_t smallest, std::int64_t largest) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode node, root.at(key));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t value, node.integer(smallest, largest));
  return static_cast<std::int32_t>(value);
}

Result<bool> optional_boolean(const JsonNode& root, std::string_view key, bool fallback) {
  const std::optional<JsonNode> node = root.find(key);
  return node ? node->boolean() : Result<bool>(fallback);
}

Status read_architecture(const JsonNode& root, ModelConfig& config) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode names, root.at("architectures"));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> elements, names.elements());
  if (elements.empty()) {
    return names.wrong("one of the supported architectures");
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, elements.front().string());
  if (std::ranges::find(kArchitectures, name) == kArchitectures.end()) {
    return elements.front().wrong(fmt::format("one of the supported architectures: {}", fmt::join(kArchitectures, ", ")), ErrorCode::kUnsupported);
  }
  config.architecture = name;
  return {};
}

/// What would change the answers and is not computed here must be refused, not ignored.
Status refuse_unsupported(const JsonNode& root) {
  for (const std::string_view key : {"attention_bias", "use_sliding_window"}) {
    if (const auto node = root.find(key)) {
      LOCKSTEP_ASSIGN_OR_RETURN(const bool wanted, node->boolean());
      if (wanted) {
        return node->wrong("false", ErrorCode::kUnsupported);
      }
    }
  }
  if (const auto node = root.find("hidden_act")) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, node->string());
    if (name != "silu") {
      return node->wrong("\"silu\"", ErrorCode::kUnsupported);
    }
  }
  if (const auto node = root.find("quantization_config")) {
    return node->wrong("none: quantized weights are not supported; use the model's bfloat16, float16 or float32 form", ErrorCode::kUnsupported);
  }
  if (const auto node = root.find("layer_types")) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> types, node->elements());
    for (const JsonNode& type : types) {
      LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, type.string());
      if (name != "full_attention") {
        return type.wrong("\"full_attention\"", ErrorCode::kUnsupported);
      }
    }
  }
  return {};
}

Status read_shape(const JsonNode& root, ModelConfig& config) {
  LOCKSTEP_ASSIGN_OR_RETURN(config.vocabulary_size, required_integer(root, "vocab_size", 1, kVocabularyMax));
  LOCKSTEP_ASSIGN_OR_RETURN(config.hidden_size, required_integer(root, "hidden_size", 1, kHiddenMax));
  LOCKSTEP_ASSIGN_OR_RETURN(config.layer_count, required_integer(root, "num_hidden_layers", 1, kLayersMax));
  LOCKSTEP_ASSIGN_OR_RETURN(config.query_heads, required_integer(root, "num_attention_heads", 1, kHeadsMax));
  LOCKSTEP_ASSIGN_OR_RETURN(config.kv_heads, required_integer(root, "num_key_value_heads", 1, config.query_heads));
  if (config.query_heads % config.kv_heads != 0) {
    LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode node, root.at("num_key_value_heads"));
    return node.wrong(fmt::format("a divisor of num_attention_heads, which is {}", config.query_heads));
  }
  if (const auto node = root.find("head_dim")) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t size, node->integer(2, kHeadSizeMax));
    config.head_size = static_cast<std::int32_t>(size);
    if (config.head_size % 2 != 0) {
      return node->wrong("an even number: rotary embeddings turn pairs");
    }
  } else {
    config.head_size = config.hidden_size / config.query_heads;
    if (config.hidden_size % config.query_heads != 0 || config.head_size % 2 != 0 || config.head_size > kHeadSizeMax) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: head_dim is missing, and hidden_size / num_attention_heads = {} / {} is not an even whole number of at most {}",
                               config.source, config.hidden_size, config.query_heads, kHeadSizeMax)};
    }
  }
  LOCKSTEP_ASSIGN_OR_RETURN(config.context_length, required_integer(root, "max_position_embeddings", 1, kContextMax));
  if (const auto node = root.find("rms_norm_eps")) {
    LOCKSTEP_ASSIGN_OR_RETURN(const double epsilon, node->number(1e-12, 1.0));
    config.rms_norm_epsilon = static_cast<float>(epsilon);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(config.tied_embeddings, optional_boolean(root, "tie_word_embeddings", false));
  return {};
}

/// num_experts and num_local_experts are two generations' names of one number; when both are there they must agree.
Result<std::int32_t> read_expert_count(const JsonNode& root) {
  const auto local = root.find("num_local_experts");
  if (!local) {
    return required_integer(root, "num_experts", 0, kExpertsMax);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t count, local->integer(0, kExpertsMax));
  if (const auto older = root.find("num_experts")) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t other, older->integer(0, kExpertsMax));
    if (other != count) {
      return older->wrong(fmt::format("{}, the value of num_local_experts", count));
    }
  }
  return static_cast<std::int32_t>(count);
}

/// A layer has experts unless mlp_only_layers names it or it is not a decoder_sparse_step-th one.
Status read_sparse_layers(const JsonNode& root, ModelConfig& config) {
  std::int64_t step = 1;
  if (const auto node = root.find("decoder_sparse_step")) {
    LOCKSTEP_ASSIGN_OR_RETURN(step, node->integer(1, std::numeric_limits<std::int32_t>::max()));
  }
  config.layer_is_sparse.resize(static_cast<std::size_t>(config.layer_count));
  for (std::int32_t layer = 0; layer < config.layer_count; ++layer) {
    config.layer_is_sparse[static_cast<std::size_t>(layer)] = config.expert_count > 0 && (layer + 1) % step == 0 ? 1 : 0;
  }
  if (const auto node = root.find("mlp_only_layers")) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> layers, node->elements());
    for (const JsonNode& element : layers) {
      LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t layer, element.integer(0, config.layer_count - 1));
      config.layer_is_sparse[static_cast<std::size_t>(layer)] = 0;
    }
  }
  return {};
}

Status read_layers(const JsonNode& root, ModelConfig& config) {
  LOCKSTEP_ASSIGN_OR_RETURN(config.expert_count, read_expert_count(root));
  LOCKSTEP_RETURN_IF_ERROR(read_sparse_layers(root, config));
  const auto sparse = std::ranges::count(config.layer_is_sparse, 1);
  if (sparse * config.expert_count > kExpertsOfAllLayersMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {} layers of {} experts each, expected at most {} experts in all", config.source, sparse,
                                                          config.expert_count, kExpertsOfAllLayersMax)};
  }
  if (sparse < config.layer_count) {
    LOCKSTEP_ASSIGN_OR_RETURN(config.dense_width, required_integer(root, "intermediate_size", 1, kWidthMax));
  }
  if (sparse > 0) {
    LOCKSTEP_ASSIGN_OR_RETURN(config.experts_per_token, required_integer(root, "num_experts_per_tok", 1, config.expert_count));
    LOCKSTEP_ASSIGN_OR_RETURN(config.expert_width, required_integer(root, "moe_intermediate_size", 1, kWidthMax));
    LOCKSTEP_ASSIGN_OR_RETURN(config.normalize_top_k, optional_boolean(root, "norm_topk_prob", false));
  }
  return {};
}

/// `node`, an object of either generation, must ask for plain rotary embeddings.
Status require_plain_rope(const JsonNode& node) {
  if (!node.value().is_object()) {
    return node.wrong("an object or null");
  }
  for (const std::string_view key : {"rope_type", "type"}) {
    if (const auto type = node.find(key)) {
      LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, type->string());
      if (name != "default") {
        return type->wrong("\"default\"", ErrorCode::kUnsupported);
      }
    }
  }
  return {};
}

Status read_rope(const JsonNode& root, ModelConfig& config) {
  std::optional<JsonNode> theta = root.find("rope_theta");
  std::optional<JsonNode> part = root.find("partial_rotary_factor");
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    const auto node = root.find(key);
    if (!node) {
      continue;
    }
    LOCKSTEP_RETURN_IF_ERROR(require_plain_rope(*node));
    if (const auto inner = node->find("rope_theta")) {
      if (theta) {
        LOCKSTEP_ASSIGN_OR_RETURN(const double outside, theta->number(1.0, 1e15));
        LOCKSTEP_ASSIGN_OR_RETURN(const double inside, inner->number(1.0, 1e15));
        if (outside != inside) {
          return inner->wrong(fmt::format("{}, the value of rope_theta", outside));
        }
      }
      theta = inner;
    }
    if (const auto inner = node->find("partial_rotary_factor")) {
      part = inner;
    }
  }
  if (theta) {
    LOCKSTEP_ASSIGN_OR_RETURN(config.rope_theta, theta->number(1.0, 1e15));
  }
  if (part) {
    LOCKSTEP_ASSIGN_OR_RETURN(const double factor, part->number(0.0, 1.0));
    if (factor != 1.0) {
      return part->wrong("1", ErrorCode::kUnsupported);
    }
  }
  return {};
}

/// One id, or several. Absent or null: none.
Result<std::vector<std::int32_t>> end_tokens(const JsonNode& root, const ModelConfig& config) {
  std::vector<std::int32_t> result;
  const auto node = root.find("eos_token_id");
  if (!node) {
    return result;
  }
  std::vector<JsonNode> ids{*node};
  if (node->value().is_array()) {
    LOCKSTEP_ASSIGN_OR_RETURN(ids, node->elements());
  }
  if (ids.size() > kEndTokensMax) {
    return node->wrong(fmt::format("at most {} ids", kEndTokensMax));
  }
  for (const JsonNode& id : ids) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t value, id.integer(0, config.vocabulary_size - 1));
    result.push_back(static_cast<std::int32_t>(value));
  }
  return result;
}

Status read_end_tokens(const std::filesystem::path& folder, const JsonNode& root, ModelConfig& config) {
  const std::filesystem::path generation = folder / "generation_config.json";
  std::error_code code;
  if (std::filesystem::exists(generation, code)) {
    LOCKSTEP_ASSIGN_OR_RETURN(const JsonDocument document, read_json_file(generation, kConfigBytesMax));
    LOCKSTEP_ASSIGN_OR_RETURN(config.end_token_ids, end_tokens(JsonNode(document), config));
  }
  if (config.end_token_ids.empty()) {
    LOCKSTEP_ASSIGN_OR_RETURN(config.end_token_ids, end_tokens(root, config));
  }
  return {};
}

}  // namespace

Result<ModelConfig> read_model_config(const std::filesystem::path& folder) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonDocument document, read_json_file(folder / "config.json", kConfigBytesMax));
  const JsonNode root(document);
  ModelConfig config;
  config.source = document.file;
  LOCKSTEP_RETURN_IF_ERROR(read_architecture(root, config));
  LOCKSTEP_RETURN_IF_ERROR(refuse_unsupported(root));
  LOCKSTEP_RETURN_IF_ERROR(read_shape(root, config));
  LOCKSTEP_RETURN_IF_ERROR(read_layers(root, config));
  LOCKSTEP_RETURN_IF_ERROR(read_rope(root, config));
  LOCKSTEP_RETURN_IF_ERROR(read_end_tokens(folder, root, config));
  return config;
}

std::uint64_t hash_model_config(const ModelConfig& config) {
  // Floats by their bits: printing could round two different values to one text. `source` is left out: ranks may mount the model elsewhere.
  return fnv1a(fmt::format("{};{};{};{};{};{};{};{};{};{};{};{};{};{};{:x};{:x};{};{};{}", config.architecture, config.vocabulary_size, config.hidden_size,
                           config.layer_count, config.query_heads, config.kv_heads, config.head_size, config.context_length, config.dense_width,
                           config.expert_count, config.experts_per_token, config.expert_width, config.normalize_top_k, fmt::join(config.layer_is_sparse, ","),
                           std::bit_cast<std::uint64_t>(config.rope_theta), std::bit_cast<std::uint32_t>(config.rms_norm_epsilon), config.tied_embeddings,
                           config.attention_bias, fmt::join(config.end_token_ids, ",")));
}

}  // namespace lockstep::model
