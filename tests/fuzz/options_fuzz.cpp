// Goal: no config file, variable or argument gets past its check: a refusal has a reason, what is accepted is in range.
// Method: the input is the file; after a zero byte arguments, one a line, of which those that begin with LOCKSTEP_ are variables.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "daemon/options/options.hpp"
#include "daemon/options/sources/config_file.hpp"
#include "lockstep/core/check.hpp"
#include "tests/support/memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lockstep;
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view file_text = fuzz::take_until(rest, '\0');
  const fuzz::MemoryFile file(file_text);
  std::vector<std::string> arguments{"--config", file.path().string()};
  std::map<std::string, std::string, std::less<>> variables;
  std::vector<std::string> names;
  while (!rest.empty()) {
    std::string_view line = fuzz::take_until(rest, '\n');
    if (line.starts_with("LOCKSTEP_")) {
      const std::string_view name = fuzz::take_until(line, '=');
      names.emplace_back(name);
      variables.emplace(name, line);
    } else if (!line.starts_with("--config") && !line.starts_with("--c")) {  // files of this machine are not part of the input
      arguments.emplace_back(line);
    }
  }
  variables.erase("LOCKSTEP_CONFIG");
  const auto environment = [&](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
  if (const auto settings = daemon::read_config_text(file_text, "fuzz"); settings) {
    for (const auto& [name, setting] : *settings) {
      LOCKSTEP_CHECK(!setting.values.empty() && !setting.source.empty(), "{} without value or source", name);
    }
  }
  const auto parsed = daemon::parse_options(arguments, environment, "fuzz");
  if (const auto* options = std::get_if<daemon::DaemonOptions>(&parsed)) {
    LOCKSTEP_CHECK(options->max_num_seqs >= 1 && options->kv_cache_bytes >= 1 && options->stall_timeout > Duration::zero(), "out of range");
    LOCKSTEP_CHECK(options->heartbeat_interval * 3 <= options->stall_timeout, "contradiction");
  } else {
    LOCKSTEP_CHECK(!std::get<daemon::EarlyExit>(parsed).text.empty(), "a refusal without a reason");
  }
  static_cast<void>(daemon::unknown_variables(names));
  return 0;
}
