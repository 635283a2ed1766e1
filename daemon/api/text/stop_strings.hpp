// StopStringFinder: finds the first stop string in text that comes in pieces.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::daemon {

/// The end of the text is where the first stop string is complete, the longest of those that end there; it does not depend on how the text is cut. What
/// could be the beginning of a stop string is held back until that is known.
/// Threads  one at a time.      Cost  amortized linear in text × strings.
class StopStringFinder {
 public:
  /// `include`: the stop string itself is shown, and so nothing is held back.
  StopStringFinder(const std::vector<std::string>& stop_strings, bool include);

  /// Takes the next piece, of whole characters; appends what may be shown to `shown`. Nothing more is shown once a stop string was found.
  void push(std::string_view piece, std::string& shown);
  /// The text has ended: shows what was held back.
  void finish(std::string& shown);
  [[nodiscard]] bool found() const { return found_; }

 private:
  struct Pattern {
    std::string text{};
    std::vector<std::size_t> borders{};  ///< by length of a prefix: its longest proper prefix that is also its suffix (Knuth, Morris, Pratt)
    std::size_t matched = 0;             ///< the longest prefix that the text so far ends with
  };
  [[nodiscard]] static std::size_t next_match(const Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  std::string held_;  ///< the end of the text, not yet shown
  bool include_;
  bool found_ = false;
};

}  // namespace lockstep::daemon
