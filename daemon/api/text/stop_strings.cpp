#include "daemon/api/text/stop_strings.hpp"

#include <algorithm>

namespace lockstep::daemon {

StopStringFinder::StopStringFinder(const std::vector<std::string>& stop_strings, bool include) : include_(include) {
  for (const std::string& text : stop_strings) {
    Pattern pattern{.text = text, .borders = std::vector<std::size_t>(text.size() + 1, 0)};
    std::size_t border = 0;
    for (std::size_t i = 1; i < text.size(); ++i) {
      while (border > 0 && text[i] != text[border]) {
        border = pattern.borders[border];
      }
      border += text[i] == text[border] ? 1 : 0;
      pattern.borders[i + 1] = border;
    }
    patterns_.push_back(std::move(pattern));
  }
}

/// How much of the pattern the text ends with after one more byte.
std::size_t StopStringFinder::next_match(const Pattern& pattern, char byte) {
  std::size_t matched = pattern.matched;
  while (matched > 0 && pattern.text[matched] != byte) {
    matched = pattern.borders[matched];
  }
  return matched + (pattern.text[matched] == byte ? 1 : 0);
}

void StopStringFinder::push(std::string_view piece, std::string& shown) {
  if (found_) {
    return;
  }
  for (const char byte : piece) {
    if (found_) {
      break;
    }
    held_ += byte;
    std::size_t longest_match = 0;  // of a whole stop string that ends here
    for (Pattern& pattern : patterns_) {
      pattern.matched = next_match(pattern, byte);
      if (pattern.matched == pattern.text.size()) {
        longest_match = std::max(longest_match, pattern.matched);
        found_ = true;
      }
    }
    if (found_ && !include_) {
      held_.resize(held_.size() - longest_match);
    }
  }
  std::size_t held_back = 0;
  for (const Pattern& pattern : patterns_) {
    held_back = std::max(held_back, found_ || include_ ? 0 : pattern.matched);
  }
  shown.append(held_, 0, held_.size() - held_back);
  held_.erase(0, held_.size() - held_back);
}

void StopStringFinder::finish(std::string& shown) {
  shown += held_;
  held_.clear();
}

}  // namespace lockstep::daemon
