#include "daemon/served_model/served_model.hpp"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "daemon/served_model/id_tokenizer.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/kv_cache.hpp"

namespace lockstep::daemon {
namespace {

constexpr const char* kEmbeddedName = "tiny-moe";

bool is_file(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

Result<std::unique_ptr<model::Tokenizer>> open_tokenizer(const DaemonOptions& options, const std::filesystem::path& folder, const model::ModelConfig& config) {
  const std::filesystem::path path = folder / "tokenizer.json";
  if (options.load_format == LoadFormat::kDummy && !is_file(path)) {
    return make_id_tokenizer(config.vocabulary_size);
  }
  return model::Tokenizer::open(path);
}

Result<std::unique_ptr<model::WeightSource>> open_weights(const DaemonOptions& options, const std::filesystem::path& folder) {
  if (options.load_format == LoadFormat::kDummy) {
    return model::make_dummy_weights(options.dummy_seed);
  }
  return model::open_safetensors(folder);
}

/// The engine checks these too; here they end the process before a port opens, the group meets, and gigabytes are read.
Status check_options(const DaemonOptions& options, const model::ModelConfig& config) {
  if (options.device != device::kAutoDevice) {
    LOCKSTEP_RETURN_IF_ERROR(device::find_device_backend(options.device));
  }
  if (options.max_model_len > config.context_length) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--max-model-len is {}, expected at most the model's context of {} tokens, or 0 for all of it",
                                                          options.max_model_len, config.context_length)};
  }
  const device::KvCacheSpec layer{.kv_heads = config.kv_heads, .head_size = config.head_size};
  const std::int64_t block_bytes = layer.bytes_per_token() * device::kKvBlockTokens * config.layer_count;
  if (options.kv_cache_bytes < block_bytes) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--kv-cache-memory is {} bytes, but one block of {} tokens takes {} bytes over {} layers: give at "
                                                          "least that",
                                                          options.kv_cache_bytes, device::kKvBlockTokens, block_bytes, config.layer_count)};
  }
  return {};
}

}  // namespace

Result<std::filesystem::path> find_embedded_model(const std::filesystem::path& executable) {
  const std::filesystem::path folder = executable.parent_path();
  const std::filesystem::path installed = (folder / "../share/lockstep/models" / kEmbeddedName).lexically_normal();
  const std::filesystem::path built = folder / "model/embedded";
  for (const std::filesystem::path& candidate : {installed, built}) {
    if (is_file(candidate / "config.json")) {
      return candidate;
    }
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("the embedded model is neither in {} nor in {}; install lockstep again, or name a model with --model",
                                                        installed.string(), built.string())};
}

Result<ServedModel> open_served_model(const DaemonOptions& options, const std::filesystem::path& executable) {
  ServedModel result;
  std::filesystem::path folder = options.model;
  result.names = options.served_model_names;
  result.name = result.names.empty() ? std::string() : result.names.front();
  if (folder.empty()) {
    LOCKSTEP_ASSIGN_OR_RETURN(folder, find_embedded_model(executable));
    result.name = result.name.empty() ? kEmbeddedName : result.name;
  }
  if (result.name.empty()) {
    // "models/x/" and "." have no last part of their own.
    std::error_code error;
    const std::filesystem::path whole = std::filesystem::weakly_canonical(folder, error);
    result.name = whole.filename().empty() ? "model" : whole.filename().string();
  }
  if (result.names.empty()) {
    result.names.push_back(result.name);
  }
  result.load_format = options.load_format == LoadFormat::kDummy ? "dummy" : "safetensors";
  LOCKSTEP_ASSIGN_OR_RETURN(result.config, model::read_model_config(folder));
  LOCKSTEP_RETURN_IF_ERROR(check_options(options, result.config));
  if (options.generation_config) {
    Result<model::GenerationDefaults> defaults = model::read_generation_defaults(folder);
    if (!defaults) {
      Error error = std::move(defaults).error();
      error.message += " (--generation-config none leaves out what the file says of sampling)";
      return error;
    }
    result.generation_defaults = *defaults;
  }
  if (options.default_max_tokens > 0) {
    result.generation_defaults.max_new_tokens = options.default_max_tokens;
  }
  LOCKSTEP_ASSIGN_OR_RETURN(result.weights, open_weights(options, folder));
  LOCKSTEP_RETURN_IF_ERROR(model::check_weights(*result.weights, result.config));
  LOCKSTEP_ASSIGN_OR_RETURN(result.tokenizer, open_tokenizer(options, folder, result.config));
  if (std::error_code error; !options.chat_template_file.empty() && !std::filesystem::exists(options.chat_template_file, error)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--chat-template {}: no such file; expected a Jinja file that renders conversations", options.chat_template_file.string())};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(result.chat_template, model::ChatTemplate::open(folder, options.chat_template_file));
  return result;
}

}  // namespace lockstep::daemon
