// GenerationDefaults: how a model's makers mean it to be sampled.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "lockstep/core/result.hpp"

namespace lockstep::model {

/// The values of generation_config.json for requests that leave them out, each checked; absent: the file does not say.      Threads  a value.
struct GenerationDefaults {
  std::optional<float> temperature{};         ///< [0, 2]
  std::optional<float> top_p{};               ///< (0, 1]
  std::optional<std::int32_t> top_k{};        ///< tokens; 0 is all
  std::optional<float> min_p{};               ///< [0, 1]
  std::optional<float> repetition_penalty{};  ///< (0, 10]
  std::optional<std::int32_t> max_new_tokens{};

  friend bool operator==(const GenerationDefaults& a, const GenerationDefaults& b) = default;
};

/// Reads generation_config.json; without the file, nothing has a default. What else it has (do_sample, beams) is ignored.
/// Errors  kInvalidArgument: file, key, value found, value expected.
[[nodiscard]] Result<GenerationDefaults> read_generation_defaults(const std::filesystem::path& folder);

}  // namespace lockstep::model
