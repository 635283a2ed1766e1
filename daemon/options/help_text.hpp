// What --help prints.
#pragma once

#include <string>
#include <string_view>

namespace lockstep::daemon {

/// Every option by group, with what it takes, its default and its variable.
[[nodiscard]] std::string help_text(std::string_view version);

}  // namespace lockstep::daemon
