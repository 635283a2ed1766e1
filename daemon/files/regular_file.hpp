// read_regular_file: small files that the operator names.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

struct RegularFile {
  std::string text;
  bool others_may_read = false;  ///< its group or everybody, by its mode
};

/// All of `file`. Never waits: opening a pipe, or reading a device, could take for ever. /dev/null, by which users say "none", is an empty file.
/// Errors  kInvalidArgument: it is not there, may not be read, is no regular file or has more than `bytes_max`. The message is the cause alone, such as
///         "is a folder, not a regular file": to stand behind the option's name and the path.
[[nodiscard]] Result<RegularFile> read_regular_file(const std::filesystem::path& file, std::size_t bytes_max);

/// The same but for the reading, which a library does.      Errors  as above.
[[nodiscard]] Status check_regular_file(const std::filesystem::path& file);

}  // namespace lockstep::daemon
