#include "daemon/options/values/nearest_name.hpp"

#include <algorithm>
#include <vector>

namespace lockstep::daemon {
namespace {

constexpr std::size_t kLongestName = 64;
constexpr std::size_t kShortestStart = 3;  // two letters begin too many names

std::string in_lower_case(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
  return lower;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Rows of the table of distances between the beginnings of `a` and of `b`; a swap looks two rows back.
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before_last, last);
    std::swap(last, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

std::string nearest_name(std::string_view wanted, std::span<const std::string> names) {
  if (wanted.empty() || wanted.size() > kLongestName) {
    return {};
  }
  const std::string lower = in_lower_case(wanted);
  std::string nearest;
  std::size_t least = std::max<std::size_t>(1, wanted.size() / 3) + 1;
  for (const std::string& name : names) {
    if (const std::size_t distance = edit_distance(lower, in_lower_case(name)); distance < least) {
      least = distance;
      nearest = name;
    }
  }
  if (nearest.empty() && wanted.size() >= kShortestStart) {
    const auto found = std::ranges::find_if(names, [&](const std::string& name) { return in_lower_case(name).starts_with(lower); });
    nearest = found == names.end() ? std::string() : *found;
  }
  return nearest;
}

}  // namespace lockstep::daemon
