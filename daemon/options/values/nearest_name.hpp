// The name that a user probably meant.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lockstep::daemon {

/// How many insertions, deletions, replacements and swaps of neighbours make `b` of `a`.      Cost  a.size() * b.size().
[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);

/// Of `names` the one that is nearest to `wanted`: at most a third of its letters differ (one of a short word), or it begins with `wanted`. "" when none is
/// near, and when `wanted` is longer than any name could be, so that hostile input costs nothing.
[[nodiscard]] std::string nearest_name(std::string_view wanted, std::span<const std::string> names);

}  // namespace lockstep::daemon
