// Goal: whatever stands in config.json and generation_config.json, every number that is used afterwards is within its range.
// Method: the input is both files, with a zero byte between them; sizes that memory depends on are computed as at a start.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "lockstep/comm/group.hpp"
#include "lockstep/core/check.hpp"
#include "lockstep/model/model_config.hpp"
#include "lockstep/scheduler/engine.hpp"
#include "tests/support/memory_file.hpp"

namespace {

/// A folder whose files are links to memory files: made once.
std::filesystem::path folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "lockstep_fuzz_XXXXXX").string();
  LOCKSTEP_CHECK(::mkdtemp(pattern.data()) != nullptr, "no folder {}", pattern);
  return pattern;
}

void link(const std::filesystem::path& name, const std::filesystem::path& target) {
  std::filesystem::remove(name);
  std::filesystem::create_symlink(target, name);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lockstep;
  static const std::filesystem::path kFolder = folder();
  std::string_view rest = fuzz::text_of(data, size);
  const fuzz::MemoryFile config_file(fuzz::take_until(rest, '\0'));
  const fuzz::MemoryFile generation_file(rest);
  link(kFolder / "config.json", config_file.path());
  std::filesystem::remove(kFolder / "generation_config.json");
  if (!rest.empty()) {
    link(kFolder / "generation_config.json", generation_file.path());
  }
  const Result<model::ModelConfig> config = model::read_model_config(kFolder);
  if (!config) {
    LOCKSTEP_CHECK(!config.error().message.empty(), "a refusal without a reason");
    return 0;
  }
  LOCKSTEP_CHECK(config->layer_count > 0 && config->layer_is_sparse.size() == static_cast<std::size_t>(config->layer_count), "layers");
  LOCKSTEP_CHECK(config->hidden_size > 0 && config->head_size > 0 && config->kv_heads > 0 && config->query_heads % config->kv_heads == 0, "heads");
  LOCKSTEP_CHECK(config->experts_per_token <= config->expert_count, "experts");
  const scheduler::EngineOptions options;
  if (scheduler::check_engine_options(options, *config, 2)) {
    LOCKSTEP_CHECK(scheduler::kv_cache_bytes_used(options, *config) > 0, "KV cache");
  }
  static_cast<void>(model::hash_model_config(*config));
  return 0;
}
