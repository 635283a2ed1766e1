// The table of options: one line is one option, everywhere.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "daemon/options/option_kinds.hpp"

namespace lockstep::daemon {

/// One option: flag, environment variable, key of the config file, help, check and member all come from this line.
struct OptionLine {
  const char* group;      ///< its heading in the help; lines of one group stand together
  const char* name;       ///< "max-num-seqs": the flag without dashes, and the key of the config file
  OptionKind kind;        ///< what it takes, and the member that it sets
  const char* fallback;   ///< the default as a value, or in parentheses in words: "(the folder's name)"
  const char* help;       ///< one sentence without a full stop
  const char* page = "";  ///< the same in Markdown for docs/configuration.md, where there is more to say
  bool in_file = true;    ///< false: it makes no sense there
};

[[nodiscard]] std::span<const OptionLine> option_table();

/// "--max-num-seqs" and "LOCKSTEP_MAX_NUM_SEQS".
[[nodiscard]] std::string option_flag(std::string_view name);
[[nodiscard]] std::string option_variable(std::string_view name);

/// The default as users read it, without the parentheses.
[[nodiscard]] std::string option_default(const OptionLine& line);

}  // namespace lockstep::daemon
