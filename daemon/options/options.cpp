#include "daemon/options/options.hpp"

#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "daemon/options/help_text.hpp"
#include "daemon/options/option_table.hpp"
#include "daemon/options/sources/command_line.hpp"
#include "daemon/options/sources/config_file.hpp"
#include "daemon/options/values/nearest_name.hpp"
#include "lockstep/core/exit_codes.hpp"

namespace lockstep::daemon {
namespace {

constexpr std::string_view kConfigName = "config";
constexpr std::string_view kPrefix = "LOCKSTEP_";

Settings read_environment(const comm::EnvironmentReader& environment) {
  Settings settings;
  for (const OptionLine& line : option_table()) {
    const std::string variable = option_variable(line.name);
    if (auto value = environment(variable)) {
      settings.emplace(line.name, Setting{.values = {std::move(*value)}, .source = fmt::format("by {}", variable)});
    }
  }
  return settings;
}

/// The values of a list are separated by commas too.
std::vector<std::string_view> values_of(const OptionLine& line, const Setting& setting) {
  if (line.kind.clear == nullptr) {
    return {setting.values.back()};
  }
  std::vector<std::string_view> values;
  for (std::string_view rest : setting.values) {
    for (std::size_t comma = rest.find(','); comma != std::string_view::npos; comma = rest.find(',')) {
      values.push_back(rest.substr(0, comma));
      rest.remove_prefix(comma + 1);
    }
    values.push_back(rest);
  }
  return values;
}

Status apply(const OptionLine& line, const Setting& setting, DaemonOptions& options) {
  if (line.kind.clear != nullptr) {
    line.kind.clear(options);
  }
  for (const std::string_view value : values_of(line, setting)) {
    if (line.kind.apply(value, options)) {
      continue;
    }
    const std::vector<std::string> choices = line.kind.choices == nullptr ? std::vector<std::string>() : line.kind.choices();
    const std::string name = nearest_name(value, choices);
    const std::string number = line.kind.nearest == nullptr ? nearest_number(value, choices) : line.kind.nearest(value);
    const std::string shown = line.kind.is_secret ? "a value" : fmt::format("\"{}\"", value);
    // Numbers first: by its letters 3 is as near to 1 as to 2.
    const std::string advice = !number.empty() ? fmt::format("; the nearest valid value is {}", number)
                               : !name.empty() ? fmt::format("; did you mean \"{}\"?", name)
                                               : "";
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} (set {}) is not {}{}", option_flag(line.name), shown, setting.source, line.kind.expected(), advice)};
  }
  return {};
}

Status check_together(const DaemonOptions& options) {
  if (options.heartbeat_interval * 3 > options.stall_timeout) {
    return Error{ErrorCode::kInvalidArgument, "--heartbeat-interval must be at most a third of --stall-timeout, or one late heartbeat ends the group"};
  }
  if (options.shared_port != 0 && options.shared_port == options.port) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--shared-port: {} is also --port; choose another", options.shared_port)};
  }
  if (options.max_model_len == 1) {
    return Error{ErrorCode::kInvalidArgument,
                 "--max-model-len: 1 has no room for a prompt and its answer; expected 0, which is the model's context, or at least 2"};
  }
  if (options.assume_ranks != 0 && !options.check && !options.dry_run) {
    return Error{ErrorCode::kInvalidArgument,
                 "--assume-ranks belongs to --check and --dry-run; to serve, start so many ranks: lockstep-run -n RANKS -- lockstepd"};
  }
  return {};
}

const Setting* find(const Settings& settings, std::string_view name) {
  const auto found = settings.find(name);
  return found == settings.end() ? nullptr : &found->second;
}

Result<DaemonOptions> combine(const Settings& command_line, const Settings& environment) {
  Settings file;
  const Setting* config = find(command_line, kConfigName);
  config = config == nullptr ? find(environment, kConfigName) : config;
  // An empty name is refused below, as any bad value.
  if (config != nullptr && !config->values.back().empty()) {
    LOCKSTEP_ASSIGN_OR_RETURN(file, read_config_file(config->values.back()));
  }
  DaemonOptions options;
  for (const OptionLine& line : option_table()) {
    for (const Settings* source : {&command_line, &environment, &std::as_const(file)}) {
      if (const Setting* setting = find(*source, line.name)) {
        LOCKSTEP_RETURN_IF_ERROR(apply(line, *setting, options));
        options.given.push_back(fmt::format("{} = {} ({})", line.name,
                                            line.kind.is_secret ? "..." : fmt::format("{}", fmt::join(values_of(line, *setting), ", ")), setting->source));
        break;
      }
    }
  }
  LOCKSTEP_RETURN_IF_ERROR(check_together(options));
  return options;
}

EarlyExit bad_input(std::string_view message) {
  return {.code = kExitBadInput, .text = fmt::format("lockstepd: {}\nTry lockstepd --help.\n", message)};
}

}  // namespace

std::vector<OptionName> option_names() {
  std::vector<OptionName> names;
  for (const OptionLine& line : option_table()) {
    names.push_back({option_flag(line.name), option_variable(line.name)});
  }
  return names;
}

std::vector<UnknownVariable> unknown_variables(std::span<const std::string> names) {
  std::vector<std::string> known;
  for (const OptionLine& line : option_table()) {
    known.push_back(option_variable(line.name).substr(kPrefix.size()));
  }
  std::vector<UnknownVariable> unknown;
  for (const std::string& name : names) {
    // The secret is no option; tests and their daemons have variables of their own.
    const bool ours = name.starts_with(kPrefix) && name != "LOCKSTEP_GROUP_SECRET" && !name.starts_with("LOCKSTEP_TEST_");
    if (ours && std::ranges::find(known, name.substr(kPrefix.size())) == known.end()) {
      // By what follows the prefix: that all share it is no likeness.
      const std::string nearest = nearest_name(std::string_view(name).substr(kPrefix.size()), known);
      unknown.push_back({name, nearest.empty() ? "" : fmt::format("{}{}", kPrefix, nearest)});
    }
  }
  return unknown;
}

std::variant<DaemonOptions, EarlyExit> parse_options(std::span<const std::string> arguments, const comm::EnvironmentReader& environment,
                                                     std::string_view version) {
  const Result<CommandLine> command_line = read_command_line(arguments);
  if (!command_line) {
    return bad_input(command_line.error().message);
  }
  if (command_line->help || command_line->version) {
    return EarlyExit{.text = command_line->help ? help_text(version) : fmt::format("lockstepd {}\n", version)};
  }
  Result<DaemonOptions> options = combine(command_line->settings, read_environment(environment));
  if (!options) {
    return bad_input(options.error().message);
  }
  return std::move(*options);
}

}  // namespace lockstep::daemon
