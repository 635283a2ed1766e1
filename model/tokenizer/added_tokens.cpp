#include "model/tokenizer/added_tokens.hpp"

#include <algorithm>

namespace lockstep::model {

void AddedTokenFinder::add(std::string content, std::int32_t id) {
  starts_[static_cast<std::uint8_t>(content.front())] = true;
  const auto place = std::ranges::lower_bound(tokens_, content, {}, &Token::content);
  tokens_.insert(place, Token{std::move(content), id});
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::find(std::string_view text, std::size_t from) const {
  if (tokens_.empty()) {
    return std::nullopt;
  }
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    if (starts_[static_cast<std::uint8_t>(text[begin])]) {
      if (const std::optional<Match> match = longest_at(text, begin)) {
        return match;
      }
    }
  }
  return std::nullopt;
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::longest_at(std::string_view text, std::size_t begin) const {
  // The tokens that agree with the text so far are a range of the sorted list; it narrows with each byte.
  std::optional<Match> longest;
  auto first = tokens_.begin();
  auto last = tokens_.end();
  for (std::size_t depth = 0; first != last && begin + depth < text.size(); ++depth) {
    if (first->content.size() == depth) {
      ++first;  // the one that ends here was taken below, and cannot go on
    }
    const auto byte_at = [depth](const Token& token) { return static_cast<std::uint8_t>(token.content[depth]); };
    const auto byte = static_cast<std::uint8_t>(text[begin + depth]);
    first = std::ranges::lower_bound(first, last, byte, {}, byte_at);
    last = std::ranges::upper_bound(first, last, byte, {}, byte_at);
    if (first != last && first->content.size() == depth + 1) {
      longest = Match{begin, begin + depth + 1, first->id};
    }
  }
  return longest;
}

}  // namespace lockstep::model
