#include "model/tokenizer/merger.hpp"

#include <algorithm>
#include <bit>

namespace lockstep::model {

namespace {

constexpr std::size_t kNone = ~std::size_t{0};

constexpr std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32U | static_cast<std::uint32_t>(right);
}

/// Whether `one` is to be merged after `other`: the order of a heap whose top is next.
constexpr auto kLater = [](const auto& one, const auto& other) { return one.rank != other.rank ? one.rank > other.rank : one.position > other.position; };

}  // namespace

Merger::Merger(std::array<std::int32_t, 256> byte_ids, std::span<const MergeRule> rules) : byte_ids_(byte_ids), slots_(std::bit_ceil(2 * rules.size() + 2)) {
  for (std::size_t rank = 0; rank < rules.size(); ++rank) {
    const std::uint64_t pair = pair_of(rules[rank].left, rules[rank].right);
    slots_[slot_index(pair)] = {pair, static_cast<std::uint32_t>(rank), rules[rank].result};
  }
}

/// The slot that holds `pair`, or the free one where it would go.
std::size_t Merger::slot_index(std::uint64_t pair) const {
  std::uint64_t hash = pair * 0x9E3779B97F4A7C15ULL;
  hash ^= hash >> 32U;
  std::size_t index = hash & (slots_.size() - 1);
  while (slots_[index].pair != pair && slots_[index].pair != kNoPair) {
    index = (index + 1) & (slots_.size() - 1);
  }
  return index;
}

const Merger::Slot* Merger::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  const Slot& slot = slots_[slot_index(pair)];
  return slot.pair == pair ? &slot : nullptr;
}

void Merger::push(Scratch& scratch, std::size_t position) const {
  const Scratch::Symbol& left = scratch.symbols_[position];
  if (left.next == kNone) {
    return;
  }
  if (const Slot* slot = find(left.id, scratch.symbols_[left.next].id)) {
    scratch.heap_.push_back({position, slot->rank, slot->result});
    std::ranges::push_heap(scratch.heap_, kLater);
  }
}

void Merger::merge_all(Scratch& scratch) const {
  auto& symbols = scratch.symbols_;
  while (!scratch.heap_.empty()) {
    std::ranges::pop_heap(scratch.heap_, kLater);
    const Scratch::Candidate candidate = scratch.heap_.back();
    scratch.heap_.pop_back();
    Scratch::Symbol& left = symbols[candidate.position];
    if (left.id < 0 || left.next == kNone) {
      continue;
    }
    // The neighbours may have changed since the candidate was pushed. It still counts when they give the same token, as in the reference.
    Scratch::Symbol& right = symbols[left.next];
    const Slot* slot = find(left.id, right.id);
    if (slot == nullptr || slot->result != candidate.result) {
      continue;
    }
    left.id = candidate.result;
    right.id = -1;
    left.next = right.next;
    if (left.next != kNone) {
      symbols[left.next].previous = candidate.position;
    }
    if (left.previous != kNone) {
      push(scratch, left.previous);
    }
    push(scratch, candidate.position);
  }
}

void Merger::merge(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (word.empty()) {
    return;
  }
  if (!whole_words_.empty()) {
    if (const auto found = whole_words_.find(std::string(word)); found != whole_words_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  scratch.symbols_.clear();
  scratch.heap_.clear();
  for (std::size_t i = 0; i < word.size(); ++i) {
    scratch.symbols_.push_back({byte_ids_[static_cast<std::uint8_t>(word[i])], i == 0 ? kNone : i - 1, i + 1 == word.size() ? kNone : i + 1});
  }
  for (std::size_t i = 0; i + 1 < word.size(); ++i) {
    push(scratch, i);
  }
  merge_all(scratch);
  for (std::size_t i = 0; i != kNone; i = scratch.symbols_[i].next) {
    ids.push_back(scratch.symbols_[i].id);
  }
}

}  // namespace lockstep::model
