// TokenCounts: which tokens a sequence has so far, and how often.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lockstep::model {

/// What the penalties of one sequence are computed from.
/// Ownership  its two tables, made once for the whole sequence.      Threads  one at a time.
class TokenCounts {
 public:
  struct Entry {
    std::int32_t token = 0;
    std::int32_t output_count = 0;  ///< times generated
  };

  TokenCounts() = default;
  /// Counts `prompt`; room for `output_tokens_max` more.      Cost  linear in both.
  TokenCounts(std::span<const std::int32_t> prompt, std::int32_t output_tokens_max, std::int32_t vocabulary_size);

  /// Cost  constant, no allocation.
  void add_output(std::int32_t token) { ++entry_of(token).output_count; }
  /// Every token of prompt and output once.
  [[nodiscard]] std::span<const Entry> entries() const { return entries_; }

 private:
  Entry& entry_of(std::int32_t token);

  std::vector<Entry> entries_;
  std::vector<std::int32_t> slots_;  ///< open addressing over entries_: index + 1, 0 is free; at most half full
};

}  // namespace lockstep::model
