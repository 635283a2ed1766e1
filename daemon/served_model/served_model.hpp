// ServedModel: a model folder, opened and checked, with its weights not read yet.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "daemon/options/options.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/model/chat_template.hpp"
#include "lockstep/model/generation_defaults.hpp"
#include "lockstep/model/model_config.hpp"
#include "lockstep/model/tokenizer.hpp"
#include "lockstep/model/weights.hpp"

namespace lockstep::daemon {

struct ServedModel {
  std::string name;                ///< in the API
  std::vector<std::string> names;  ///< that requests may use: `name` and others
  std::string load_format;
  model::ModelConfig config;
  model::GenerationDefaults generation_defaults;  ///< of --default-max-tokens and, unless --generation-config is none, the model
  std::unique_ptr<model::WeightSource> weights;
  std::unique_ptr<model::Tokenizer> tokenizer;
  std::unique_ptr<model::ChatTemplate> chat_template;  ///< null: the model has none, and answers no chats
};

/// The folder of the model that comes with lockstep: installed beside `executable` (../share/lockstep/models/tiny-moe), or in the build tree (model/embedded).
/// Errors  kInvalidArgument naming both places.
[[nodiscard]] Result<std::filesystem::path> find_embedded_model(const std::filesystem::path& executable);

/// Reads config, defaults of sampling, weight headers, tokenizer and chat template: what is wrong with a model is known before any port opens.
/// Errors  kInvalidArgument, kUnsupported: file, value found, value expected.
[[nodiscard]] Result<ServedModel> open_served_model(const DaemonOptions& options, const std::filesystem::path& executable);

}  // namespace lockstep::daemon
