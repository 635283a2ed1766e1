// find_last: where a text was last written, in linear time.
#pragma once

#include <string_view>

namespace lockstep::daemon {

/// Where `wanted` begins last in `text`; npos: nowhere. An empty one is found at the end.
/// Cost  linear, and a word for each byte of `wanted`. (std::string::rfind takes as long as both lengths multiplied, and here clients choose both.)
[[nodiscard]] std::string_view::size_type find_last(std::string_view text, std::string_view wanted);

}  // namespace lockstep::daemon
