#include "daemon/options/sources/command_line.hpp"

#include <algorithm>
#include <deque>
#include <iterator>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "daemon/options/option_table.hpp"
#include "daemon/options/values/nearest_name.hpp"

namespace lockstep::daemon {
namespace {

constexpr int kManyValues = 1 << 16;

Error bad(std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message)};
}

bool is_switch(std::string_view argument) {
  return std::ranges::any_of(option_table(), [&](const OptionLine& line) { return line.kind.is_switch && argument == option_flag(line.name); });
}

/// For CLI11, which takes "--name=" for an option without a value: in two parts it is one with an empty value, which our own checks refuse by name. And a
/// switch gets its value written out, as CLI11 would need to guess whether what follows is one.
std::vector<std::string> spelled_out(std::span<const std::string> arguments) {
  std::vector<std::string> all;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    all.push_back(argument);
    if (argument.starts_with("--") && argument.size() > 2 && argument.find('=') == argument.size() - 1) {
      all.back().pop_back();
      all.emplace_back();
    } else if (is_switch(argument) && (i + 1 == arguments.size() || !read_boolean(arguments[i + 1]))) {
      all.emplace_back("true");
    }
  }
  return all;
}

Error unknown_argument(const std::vector<std::string>& remaining, std::string_view fallback) {
  const std::string first = remaining.empty() ? std::string(fallback) : remaining.front();
  if (!first.starts_with('-') || first == "-" || first == "--") {
    return bad(fmt::format("unexpected argument \"{}\": lockstepd takes options only", first));
  }
  const std::string name = first.substr(0, first.find('='));
  std::vector<std::string> flags{"--help", "--version"};
  std::ranges::transform(option_table(), std::back_inserter(flags), [](const OptionLine& line) { return option_flag(line.name); });
  const std::string nearest = nearest_name(name, flags);
  return bad(fmt::format("\"{}\" is no option of lockstepd{}", name, nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest)));
}

}  // namespace

Result<CommandLine> read_command_line(std::span<const std::string> arguments) {
  CLI::App app;
  CommandLine result;
  app.set_help_flag("-h,--help");
  app.add_flag("--version", result.version);
  std::deque<std::vector<std::string>> values;  // CLI11 keeps their addresses
  for (const OptionLine& line : option_table()) {
    const bool is_list = line.kind.clear != nullptr;
    app.add_option(option_flag(line.name), values.emplace_back())
        ->expected(1, is_list ? kManyValues : 1)
        ->allow_extra_args(is_list)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  std::vector<std::string> all = spelled_out(arguments);
  std::ranges::reverse(all);  // CLI11 takes arguments from the back
  try {
    app.parse(all);
  } catch (const CLI::Success&) {
    result.help = true;
    return result;
  } catch (const CLI::ExtrasError& error) {
    return unknown_argument(app.remaining(), error.what());
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string_view text = error.what();
    return bad(fmt::format("{}: a value must follow it", text.substr(0, text.find(':'))));
  } catch (const CLI::Error& error) {
    return bad(error.what());
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!values[i].empty()) {
      result.settings.emplace(option_table()[i].name, Setting{.values = std::move(values[i]), .source = "on the command line"});
    }
  }
  return result;
}

}  // namespace lockstep::daemon
