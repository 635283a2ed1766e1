#include "daemon/options/help_text.hpp"

#include <iterator>

#include <fmt/format.h>

#include "daemon/options/option_table.hpp"

namespace lockstep::daemon {
namespace {

constexpr std::size_t kColumn = 34;  // where the second column begins

constexpr std::string_view kHead =
    "lockstepd {}: serves a mixture-of-experts language model from many ranks, each with its share of the experts\n\n"
    "Usage: lockstepd [OPTION ...]\n"
    "       lockstep-run -n RANKS -- lockstepd [OPTION ...]\n\n"
    "An option can be set on the command line, by its variable and in the config file; the first of these counts:\n"
    "    --max-num-seqs 32        LOCKSTEP_MAX_NUM_SEQS=32        max-num-seqs = 32\n"
    "Lists: repeat the option, or separate the values by commas; in the file also [\"a\", \"b\"].\n";

constexpr std::string_view kTail =
    "\nOther\n"
    "  -h, --help                        This text\n"
    "  --version                         The version\n"
    "  LOCKSTEP_GROUP_SECRET             Variable only, as arguments are visible to other users: the secret that all ranks share\n\n"
    "Exit status: 0 done, 1 a fault of lockstep or of the machine, 2 wrong input, 3 a rank was lost or disagreed.\n";

std::string usage(const OptionLine& line) {
  const std::string flag = option_flag(line.name);
  return line.kind.is_switch ? flag : fmt::format("{} {}", flag, line.kind.placeholder);
}

}  // namespace

std::string help_text(std::string_view version) {
  std::string text = fmt::format(fmt::runtime(kHead), version);
  std::string_view group;
  for (const OptionLine& line : option_table()) {
    if (group != line.group) {
      group = line.group;
      fmt::format_to(std::back_inserter(text), "\n{}\n", group);
    }
    const std::string first = usage(line);
    // An option that is too long for its column has its help below it.
    const std::string gap = first.size() + 3 < kColumn ? std::string(kColumn - first.size() - 2, ' ') : "\n" + std::string(kColumn, ' ');
    fmt::format_to(std::back_inserter(text), "  {}{}{}\n{}{}; default {}; {}\n", first, gap, line.help, std::string(kColumn, ' '), line.kind.expected(),
                   option_default(line), option_variable(line.name));
  }
  text += kTail;
  return text;
}

}  // namespace lockstep::daemon
