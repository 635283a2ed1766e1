#include "lockstep/model/token_counts.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace lockstep::model {

TokenCounts::TokenCounts(std::span<const std::int32_t> prompt, std::int32_t output_tokens_max, std::int32_t vocabulary_size) {
  const std::size_t distinct_max = std::min(prompt.size() + static_cast<std::size_t>(output_tokens_max), static_cast<std::size_t>(vocabulary_size));
  entries_.reserve(distinct_max);
  slots_.assign(std::bit_ceil(2 * distinct_max + 1), 0);
  for (const std::int32_t token : prompt) {
    static_cast<void>(entry_of(token));
  }
}

TokenCounts::Entry& TokenCounts::entry_of(std::int32_t token) {
  const std::size_t mask = slots_.size() - 1;
  // Fibonacci hashing: neighbouring ids, which are common, do not fall into neighbouring slots.
  std::size_t slot = (static_cast<std::uint32_t>(token) * 2654435769U) & mask;
  while (slots_[slot] != 0) {
    Entry& entry = entries_[static_cast<std::size_t>(slots_[slot] - 1)];
    if (entry.token == token) {
      return entry;
    }
    slot = (slot + 1) & mask;
  }
  entries_.push_back({.token = token});
  slots_[slot] = static_cast<std::int32_t>(entries_.size());
  return entries_.back();
}

}  // namespace lockstep::model
