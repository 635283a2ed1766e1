// Settings: what one source (command line, environment or config file) says, not checked yet.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace lockstep::daemon {

struct Setting {
  std::vector<std::string> values;  ///< as written, at least one; several where the option is repeated or an array
  std::string source;               ///< ends the words "set ...": "on the command line", "by LOCKSTEP_PORT", "in /etc/lockstep.conf line 3"
};

/// By the option's name without dashes. Of an option that is repeated on the command line all values are there, in order.
using Settings = std::map<std::string, Setting, std::less<>>;

}  // namespace lockstep::daemon
