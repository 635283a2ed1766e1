#include "daemon/api/text/find_last.hpp"

#include <cstddef>
#include <vector>

namespace lockstep::daemon {

std::string_view::size_type find_last(std::string_view text, std::string_view wanted) {
  // Knuth, Morris and Pratt's search, from the end.
  const std::size_t length = wanted.size();
  if (length == 0) {
    return text.size();
  }
  const auto from_end = [wanted, length](std::size_t i) { return wanted[length - 1 - i]; };
  std::vector<std::size_t> borders(length + 1, 0);
  for (std::size_t i = 1, border = 0; i < length; ++i) {
    while (border > 0 && from_end(i) != from_end(border)) {
      border = borders[border];
    }
    border += from_end(i) == from_end(border) ? 1 : 0;
    borders[i + 1] = border;
  }
  std::size_t matched = 0;
  for (std::size_t at = text.size(); at-- > 0;) {
    while (matched > 0 && text[at] != from_end(matched)) {
      matched = borders[matched];
    }
    matched += text[at] == from_end(matched) ? 1 : 0;
    if (matched == length) {
      return at;
    }
  }
  return std::string_view::npos;
}

}  // namespace lockstep::daemon
