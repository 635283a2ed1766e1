#include "daemon/options/options.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "daemon/options/values.hpp"
#include "lockstep/core/exit_codes.hpp"

namespace lockstep::daemon {
namespace {

constexpr std::int32_t kInt32Max = std::numeric_limits<std::int32_t>::max();

using Apply = bool (*)(const std::string& text, DaemonOptions& options);

/// One option: the flag, the environment's name, the config file's key, the help and the check all come from this line.
struct OptionLine {
  const char* name;
  const char* expected;
  const char* fallback;  ///< the default, as text
  const char* help;
  Apply apply;
};

template <auto kMember, std::int64_t kLow, std::int64_t kHigh>
bool apply_integer(const std::string& text, DaemonOptions& options) {
  const auto value = read_integer(text, kLow, kHigh);
  if (value) {
    options.*kMember = static_cast<std::remove_reference_t<decltype(options.*kMember)>>(*value);
  }
  return value.has_value();
}

template <auto kMember>
bool apply_duration(const std::string& text, DaemonOptions& options) {
  const auto value = read_duration(text);
  options.*kMember = value.value_or(options.*kMember);
  return value.has_value();
}

template <auto kMember>
bool apply_text(const std::string& text, DaemonOptions& options) {
  options.*kMember = text;
  return !text.empty();
}

bool apply_load_format(const std::string& text, DaemonOptions& options) {
  constexpr std::array<std::pair<std::string_view, LoadFormat>, 3> kFormats{
      {{"auto", LoadFormat::kAuto}, {"safetensors", LoadFormat::kSafetensors}, {"dummy", LoadFormat::kDummy}}};
  const auto* const found = std::ranges::find(kFormats, text, &std::pair<std::string_view, LoadFormat>::first);
  if (found == kFormats.end()) {
    return false;
  }
  options.load_format = found->second;
  return true;
}

bool apply_dummy_seed(const std::string& text, DaemonOptions& options) {
  const auto value = read_unsigned(text);
  options.dummy_seed = value.value_or(0);
  return value.has_value();
}

bool apply_kv_cache_memory(const std::string& text, DaemonOptions& options) {
  const auto value = read_byte_size(text);
  options.kv_cache_bytes = value.value_or(0);
  return value.has_value();
}

bool apply_log_level(const std::string& text, DaemonOptions& options) {
  constexpr std::array<std::string_view, 5> kLevels{"trace", "debug", "info", "warning", "error"};
  options.log_level = text;
  return std::ranges::find(kLevels, text) != kLevels.end();
}

using Options = DaemonOptions;
constexpr const char* kPort = "a port from 0 to 65535";
constexpr const char* kTime = "a time such as 10, 500ms, 10s or 2m (at least 1ms)";
constexpr const char* kCount = "a whole number, at least 1";

constexpr std::array kLines{
    OptionLine{"model", "the path of a folder", "the embedded model", "Folder of a Hugging Face model", apply_text<&Options::model>},
    OptionLine{"served-model-name", "a name", "the folder's name", "Name of the model in the API", apply_text<&Options::served_model_name>},
    OptionLine{"load-format", "auto, safetensors or dummy", "auto", "Where weights come from; dummy makes them from --dummy-seed", apply_load_format},
    OptionLine{"dummy-seed", "a whole number of at most 64 bits", "0", "Seed of --load-format dummy", apply_dummy_seed},
    OptionLine{"device", "the name of a device", "cpu", "Where to compute", apply_text<&Options::device>},
    OptionLine{"host", "an address of this machine", "127.0.0.1", "Address that HTTP listens on", apply_text<&Options::host>},
    OptionLine{"port", kPort, "8000", "HTTP port of this host's first rank; the others count up from it. 0: any free one",
               apply_integer<&Options::port, 0, 65535>},
    OptionLine{"shared-port", kPort, "0", "One more HTTP port on which all ranks of this host accept. 0: none", apply_integer<&Options::shared_port, 0, 65535>},
    OptionLine{"max-num-seqs", kCount, "64", "Requests computed in one step, on each rank", apply_integer<&Options::max_num_seqs, 1, kInt32Max>},
    OptionLine{"max-num-batched-tokens", kCount, "512", "Tokens computed in one step, on each rank",
               apply_integer<&Options::max_num_batched_tokens, 1, kInt32Max>},
    OptionLine{"max-pending", kCount, "1024", "Requests accepted and not finished, on each rank; more get 429",
               apply_integer<&Options::max_pending, 1, kInt32Max>},
    OptionLine{"max-model-len", "a whole number, 0 for the model's own", "0", "Longest prompt with its answer, in tokens",
               apply_integer<&Options::max_model_len, 0, kInt32Max>},
    OptionLine{"kv-cache-memory", "a size such as 256M or 2G", "256M", "Memory of the KV cache, on each rank", apply_kv_cache_memory},
    OptionLine{"micro-batches", "1 or 2", "1", "Into how many micro-batches a step may be split", apply_integer<&Options::micro_batches, 1, 2>},
    OptionLine{"stall-timeout", kTime, "10s", "How long a rank may make no progress before its group ends", apply_duration<&Options::stall_timeout>},
    OptionLine{"start-timeout", kTime, "60s", "How long all ranks may take to find each other", apply_duration<&Options::start_timeout>},
    OptionLine{"drain-timeout", kTime, "30s", "How long accepted requests may take to finish after SIGTERM or SIGUSR1",
               apply_duration<&Options::drain_timeout>},
    OptionLine{"heartbeat-interval", kTime, "100ms", "How often ranks tell each other of their progress", apply_duration<&Options::heartbeat_interval>},
    OptionLine{"keep-alive-interval", kTime, "5s", "How often an idle group takes a step", apply_duration<&Options::keep_alive_interval>},
    OptionLine{"peer-bind", "an IPv4 address of this machine", "chosen", "Address on which other ranks reach this one", apply_text<&Options::peer_bind>},
    OptionLine{"group-secret-file", "the path of a file", "none", "File with the secret that all ranks share; or set LOCKSTEP_GROUP_SECRET",
               apply_text<&Options::group_secret_file>},
    OptionLine{"log-level", "trace, debug, info, warning or error", "info", "Least important kind of message that is logged", apply_log_level},
};

constexpr const char* kConfigName = "config";

std::string environment_name(std::string_view name) {
  std::string result = "LOCKSTEP_";
  for (const char c : name) {
    result += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return result;
}

bool is_given(std::span<const std::string> arguments, std::string_view flag) {
  return std::ranges::any_of(arguments, [&](const std::string& argument) { return argument == flag || argument.starts_with(std::string(flag) + "="); });
}

/// Checks and takes over what CLI11 has found for one line. The message on failure, else "".
std::string take(const OptionLine& line, const CLI::Option& found, const std::string& text, std::span<const std::string> arguments,
                 const comm::EnvironmentReader& environment, const std::string& config_file, DaemonOptions& options) {
  if (found.count() == 0 || line.apply(text, options)) {
    return {};
  }
  const std::string variable = environment_name(line.name);
  const std::string flag = fmt::format("--{}", line.name);
  const std::string source = is_given(arguments, flag) ? "on the command line" : environment(variable) ? "by " + variable : "in " + config_file;
  return fmt::format("{}: \"{}\" (set {}) is not {}", flag, text, source, line.expected);
}

/// The config file that was asked for, or "".
std::string config_path(const CLI::App& app) {
  const CLI::Option* option = app.get_config_ptr();
  return option == nullptr || option->empty() ? std::string() : option->as<std::string>();
}

/// CLI11's words for what it could not read, with the file and in ours where they say too little.
std::string describe(const CLI::Error& error, const CLI::App& app, const std::string& config_file) {
  const std::string text = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    const std::vector<std::string> unknown = app.remaining();
    const std::string first = unknown.empty() ? text : unknown.front();
    return first.starts_with('-') ? fmt::format("\"{}\" is no option of lockstepd", first)
                                  : fmt::format("unexpected argument \"{}\": lockstepd takes options only", first);
  }
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    return fmt::format("{}: a value must follow it", text.substr(0, text.find(':')));
  }
  if (dynamic_cast<const CLI::ConfigError*>(&error) != nullptr) {
    constexpr std::string_view kUnknown = "INI was not able to parse ";
    return text.starts_with(kUnknown) ? fmt::format("{}: \"{}\" is no option of lockstepd; expected lines of option = value, without sections", config_file,
                                                    text.substr(kUnknown.size()))
                                      : fmt::format("{}: {}", config_file, text);
  }
  return dynamic_cast<const CLI::FileError*>(&error) != nullptr ? fmt::format("--{}: {}", kConfigName, text) : text;
}

EarlyExit bad_input(std::string_view message) {
  return {.code = kExitBadInput, .text = fmt::format("lockstepd: {}\nTry lockstepd --help.\n", message)};
}

/// CLI11 takes "--name=" for an option without a value; in two parts it is one with an empty value, which our own checks refuse by name.
void add_argument(const std::string& argument, std::vector<std::string>& all) {
  if (argument.starts_with("--") && argument.ends_with('=') && argument.find('=') == argument.size() - 1) {
    all.push_back(argument.substr(0, argument.size() - 1));
    all.emplace_back();
  } else {
    all.push_back(argument);
  }
}

/// The environment as arguments: they come before the user's own, and of two values the last counts.
std::vector<std::string> with_environment(std::span<const std::string> arguments, const comm::EnvironmentReader& environment) {
  std::vector<std::string> all;
  const auto add = [&](const char* name) {
    if (const auto value = environment(environment_name(name))) {
      add_argument(fmt::format("--{}={}", name, *value), all);
    }
  };
  for (const OptionLine& line : kLines) {
    add(line.name);
  }
  add(kConfigName);
  for (const std::string& argument : arguments) {
    add_argument(argument, all);
  }
  return all;
}

std::string check_together(const DaemonOptions& options) {
  if (options.heartbeat_interval * 3 > options.stall_timeout) {
    return "--heartbeat-interval must be at most a third of --stall-timeout, or one late heartbeat ends the group";
  }
  if (options.shared_port != 0 && options.shared_port == options.port) {
    return fmt::format("--shared-port: {} is also --port; choose another", options.shared_port);
  }
  return {};
}

}  // namespace

std::vector<OptionName> option_names() {
  std::vector<OptionName> names;
  for (const OptionLine& line : kLines) {
    names.push_back({fmt::format("--{}", line.name), environment_name(line.name)});
  }
  names.push_back({fmt::format("--{}", kConfigName), environment_name(kConfigName)});
  return names;
}

std::variant<DaemonOptions, EarlyExit> parse_options(std::span<const std::string> arguments, const comm::EnvironmentReader& environment,
                                                     std::string_view version) {
  CLI::App app{"lockstepd: a data-parallel worker daemon for mixture-of-experts language models", "lockstepd"};
  app.set_version_flag("--version", fmt::format("lockstepd {}", version));
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_config(fmt::format("--{}", kConfigName), "", "Config file: lines of option = value")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->envname(environment_name(kConfigName));
  std::array<std::string, kLines.size()> texts;  // CLI11 writes here; the checks are ours
  std::vector<CLI::Option*> found;
  for (std::size_t i = 0; i < kLines.size(); ++i) {
    const OptionLine& line = kLines[i];
    found.push_back(app.add_option(fmt::format("--{}", line.name), texts[i], fmt::format("{} [{}]", line.help, line.fallback))
                        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
                        ->expected(1)
                        ->type_name("")
                        ->envname(environment_name(line.name)));
  }
  std::vector<std::string> all = with_environment(arguments, environment);
  std::ranges::reverse(all);  // CLI11 takes arguments from the back
  try {
    app.parse(all);
  } catch (const CLI::CallForVersion& request) {
    return EarlyExit{.text = std::string(request.what()) + "\n"};
  } catch (const CLI::Success&) {
    return EarlyExit{.text = app.help()};
  } catch (const CLI::Error& error) {
    return bad_input(describe(error, app, config_path(app)));
  }
  DaemonOptions options;
  for (std::size_t i = 0; i < kLines.size(); ++i) {
    if (const std::string message = take(kLines[i], *found[i], texts[i], arguments, environment, config_path(app), options); !message.empty()) {
      return bad_input(message);
    }
  }
  if (const std::string message = check_together(options); !message.empty()) {
    return bad_input(message);
  }
  return options;
}

}  // namespace lockstep::daemon
