// The config file: lines of option = value, as CLI11 writes and TOML reads them.
#pragma once

#include <filesystem>
#include <string_view>

#include "daemon/options/sources/settings.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

/// A line is `name = value`, a comment after # or ;, the section [default], or empty. A value is bare, in quotes ("..." knows \" and \\, '...' nothing), or an
/// array of such: [a, "b"], also over several lines. A # within a bare value belongs to it unless a space comes before it. A switch alone means true.
/// Errors  kInvalidArgument naming `file` and line: a name that is no option (with the nearest that is) or is there twice, a quote or bracket that is not
///         closed, something after a value, a section, an array for an option of one value.
[[nodiscard]] Result<Settings> read_config_text(std::string_view text, std::string_view file);

/// Errors  as read_config_text; a file that cannot be read, or has more than 1 MiB.
[[nodiscard]] Result<Settings> read_config_file(const std::filesystem::path& file);

}  // namespace lockstep::daemon
