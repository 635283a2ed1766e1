#include "lockstep/model/generation_defaults.hpp"

#include <limits>
#include <string_view>
#include <system_error>

#include "model/json/json_node.hpp"

namespace lockstep::model {
namespace {

constexpr std::size_t kFileBytesMax = 4U << 20U;
constexpr double kLeastAbove0 = 1e-6;  // of what must be more than 0, and still is as a float

Status read_number(const JsonNode& root, std::string_view key, double smallest, double largest, std::optional<float>& result) {
  if (const auto node = root.find(key)) {
    LOCKSTEP_ASSIGN_OR_RETURN(const double value, node->number(smallest, largest));
    result = static_cast<float>(value);
  }
  return {};
}

Status read_count(const JsonNode& root, std::string_view key, std::int64_t smallest, std::optional<std::int32_t>& result) {
  if (const auto node = root.find(key)) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t value, node->integer(smallest, std::numeric_limits<std::int32_t>::max()));
    result = static_cast<std::int32_t>(value);
  }
  return {};
}

}  // namespace

Result<GenerationDefaults> read_generation_defaults(const std::filesystem::path& folder) {
  GenerationDefaults defaults;
  const std::filesystem::path file = folder / "generation_config.json";
  if (std::error_code error; !std::filesystem::exists(file, error)) {
    return defaults;
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonDocument document, read_json_file(file, kFileBytesMax));
  const JsonNode root(document);
  LOCKSTEP_RETURN_IF_ERROR(read_number(root, "temperature", 0.0, 2.0, defaults.temperature));
  LOCKSTEP_RETURN_IF_ERROR(read_number(root, "top_p", kLeastAbove0, 1.0, defaults.top_p));
  LOCKSTEP_RETURN_IF_ERROR(read_number(root, "min_p", 0.0, 1.0, defaults.min_p));
  LOCKSTEP_RETURN_IF_ERROR(read_number(root, "repetition_penalty", kLeastAbove0, 10.0, defaults.repetition_penalty));
  LOCKSTEP_RETURN_IF_ERROR(read_count(root, "top_k", 0, defaults.top_k));
  LOCKSTEP_RETURN_IF_ERROR(read_count(root, "max_new_tokens", 1, defaults.max_new_tokens));
  return defaults;
}

}  // namespace lockstep::model
