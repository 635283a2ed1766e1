// The command line, read by CLI11 after the option table.
#pragma once

#include <span>
#include <string>

#include "daemon/options/sources/settings.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

struct CommandLine {
  Settings settings;
  bool help = false;
  bool version = false;
};

/// `arguments` without the program's name. "--name value" and "--name=value"; of a list several values may follow, of a switch none needs to.
/// Errors  kInvalidArgument: an option that is not in the table (with the nearest that is), an argument that belongs to none, a value that is missing.
[[nodiscard]] Result<CommandLine> read_command_line(std::span<const std::string> arguments);

}  // namespace lockstep::daemon
