// The regular expressions of tokenizer.json, whose dialect is Oniguruma's, for PCRE2.
#pragma once

#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"

namespace lockstep::model {

/// `pattern` in PCRE2's syntax with the meaning that it has in Oniguruma's (Ruby) syntax. What the two read differently is translated or refused.
/// Errors  kUnsupported naming the construct.
[[nodiscard]] Result<std::string> translate_pattern(std::string_view pattern);

}  // namespace lockstep::model
