// Added tokens: whole tokens written out in a text, such as <|im_start|>.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::model {

/// Finds added tokens in a text, leftmost first and of several there the longest.      Threads  const calls from any.
class AddedTokenFinder {
 public:
  struct Match {
    std::size_t begin;
    std::size_t end;
    std::int32_t id;
  };

  /// `content` must not be empty.
  void add(std::string content, std::int32_t id);
  [[nodiscard]] bool empty() const { return tokens_.empty(); }
  /// Cost    O(text * log(tokens)) for usual texts; each position looks at most as far as the longest token.
  [[nodiscard]] std::optional<Match> find(std::string_view text, std::size_t from) const;

 private:
  struct Token {
    std::string content;
    std::int32_t id;
  };
  [[nodiscard]] std::optional<Match> longest_at(std::string_view text, std::size_t begin) const;

  std::vector<Token> tokens_;  // sorted by content
  std::array<bool, 256> starts_{};
};

}  // namespace lockstep::model
