// Merger: byte-pair encoding of one piece of text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lockstep::model {

/// Two neighbouring tokens become one. A rule's rank is its place in the list.
struct MergeRule {
  std::int32_t left;
  std::int32_t right;
  std::int32_t result;
};

/// Applies merge rules, lowest rank first and leftmost among equals, until none fits.      Threads  const calls from any, each with its own Scratch.
class Merger {
 public:
  /// Buffers kept from word to word, so that a text costs no allocation per word.
  class Scratch {
    friend class Merger;
    struct Symbol {
      std::int32_t id;  // -1: merged into the one before
      std::size_t previous;
      std::size_t next;
    };
    struct Candidate {
      std::size_t position;
      std::uint32_t rank;
      std::int32_t result;
    };
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
  };

  Merger() = default;
  /// `byte_ids`: the token of each single byte. Of equal pairs the last rule counts, as in the reference.
  Merger(std::array<std::int32_t, 256> byte_ids, std::span<const MergeRule> rules);
  /// Words that are tokens as a whole are not merged at all (`ignore_merges`).
  void set_whole_words(std::unordered_map<std::string, std::int32_t> words) { whole_words_ = std::move(words); }

  /// Appends the tokens of `word`.      Cost  O(n log n) in its bytes, for any word.
  void merge(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;

 private:
  struct Slot {
    std::uint64_t pair = kNoPair;
    std::uint32_t rank = 0;
    std::int32_t result = 0;
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};  // ids are not negative: no pair has all bits set

  [[nodiscard]] std::size_t slot_index(std::uint64_t pair) const;
  [[nodiscard]] const Slot* find(std::int32_t left, std::int32_t right) const;
  void push(Scratch& scratch, std::size_t position) const;
  void merge_all(Scratch& scratch) const;

  std::array<std::int32_t, 256> byte_ids_{};
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  std::unordered_map<std::string, std::int32_t> whole_words_;
};

}  // namespace lockstep::model
