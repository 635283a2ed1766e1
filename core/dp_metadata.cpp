#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"
#include "lockstep/forward_context.hpp"

namespace lockstep {

namespace {

/// The total is an int32 like everything on the wire, and so are the offsets: what makes an object checks the sum once, so that no later sum can overflow.
bool sum_fits(std::span<const std::int32_t> tokens_per_rank) {
  return std::accumulate(tokens_per_rank.begin(), tokens_per_rank.end(), std::int64_t{0}) <= std::numeric_limits<std::int32_t>::max();
}

}  // namespace

DPMetadata DPMetadata::make(int world_size, int rank, std::int32_t num_tokens, std::optional<std::vector<std::int32_t>> num_tokens_across_dp) {
  if (world_size < 1) {
    throw std::invalid_argument(fmt::format("world_size is {}, expected at least 1", world_size));
  }
  if (rank < 0 || rank >= world_size) {
    throw std::invalid_argument(fmt::format("rank is {}, expected 0 to {}", rank, world_size - 1));
  }
  if (num_tokens < 0) {
    throw std::invalid_argument(fmt::format("num_tokens is {}, expected at least 0", num_tokens));
  }
  DPMetadata result;
  result.rank_ = rank;
  if (!num_tokens_across_dp) {
    result.tokens_per_rank_.assign(static_cast<std::size_t>(world_size), num_tokens / world_size);
    std::for_each_n(result.tokens_per_rank_.begin(), num_tokens % world_size, [](std::int32_t& tokens) { ++tokens; });
    return result;
  }
  if (num_tokens_across_dp->size() != static_cast<std::size_t>(world_size)) {
    throw std::invalid_argument(
        fmt::format("num_tokens_across_dp has {} entries, expected one for each of {} ranks", num_tokens_across_dp->size(), world_size));
  }
  for (std::size_t i = 0; i < num_tokens_across_dp->size(); ++i) {
    if ((*num_tokens_across_dp)[i] < 0) {
      throw std::invalid_argument(fmt::format("num_tokens_across_dp[{}] is {}, expected at least 0", i, (*num_tokens_across_dp)[i]));
    }
  }
  if (const std::int32_t own = (*num_tokens_across_dp)[static_cast<std::size_t>(rank)]; own != num_tokens) {
    throw std::invalid_argument(fmt::format("num_tokens is {}, but num_tokens_across_dp[{}] is {}: they must be equal", num_tokens, rank, own));
  }
  if (!sum_fits(*num_tokens_across_dp)) {
    throw std::invalid_argument(fmt::format("num_tokens_across_dp adds up to more than {} tokens", std::numeric_limits<std::int32_t>::max()));
  }
  result.tokens_per_rank_ = std::move(*num_tokens_across_dp);
  return result;
}

DPMetadata DPMetadata::single(std::int32_t num_tokens) {
  return make(1, 0, num_tokens);
}

void DPMetadata::assign(int rank, std::span<const std::int32_t> tokens_per_rank) {
  // The caller's counts come from decide(), which has refused what a peer got wrong.
  LOCKSTEP_CHECK(rank >= 0 && static_cast<std::size_t>(rank) < tokens_per_rank.size(), "rank {} of {}", rank, tokens_per_rank.size());
  LOCKSTEP_CHECK(sum_fits(tokens_per_rank), "rank {}: the token counts of {} ranks overflow", rank, tokens_per_rank.size());
  rank_ = rank;
  tokens_per_rank_.assign(tokens_per_rank.begin(), tokens_per_rank.end());
}

std::int32_t DPMetadata::get_local_tokens() const {
  return tokens_per_rank_.empty() ? 0 : tokens_per_rank_[static_cast<std::size_t>(rank_)];
}

std::int32_t DPMetadata::get_total_tokens() const {
  return std::accumulate(tokens_per_rank_.begin(), tokens_per_rank_.end(), 0);
}

std::int32_t DPMetadata::max_tokens() const {
  return tokens_per_rank_.empty() ? 0 : *std::max_element(tokens_per_rank_.begin(), tokens_per_rank_.end());
}

std::vector<std::int32_t> DPMetadata::offsets() const {
  std::vector<std::int32_t> result(tokens_per_rank_.size() + 1, 0);
  std::partial_sum(tokens_per_rank_.begin(), tokens_per_rank_.end(), result.begin() + 1);
  return result;
}

DPMetadata DPMetadata::chunk(std::int32_t index, std::int32_t micro_batch_tokens) const {
  DPMetadata result;
  chunk_into(index, micro_batch_tokens, result);
  return result;
}

void DPMetadata::chunk_into(std::int32_t index, std::int32_t micro_batch_tokens, DPMetadata& out) const {
  if (index < 0 || micro_batch_tokens < 1) {
    throw std::invalid_argument(
        fmt::format("micro-batch {} of {} tokens each: expected an index of at least 0 and a size of at least 1", index, micro_batch_tokens));
  }
  out.rank_ = rank_;
  out.tokens_per_rank_.resize(tokens_per_rank_.size());
  const std::int64_t begin = std::int64_t{index} * micro_batch_tokens;
  for (std::size_t i = 0; i < tokens_per_rank_.size(); ++i) {
    const std::int64_t left = tokens_per_rank_[i] - begin;
    out.tokens_per_rank_[i] = static_cast<std::int32_t>(std::clamp<std::int64_t>(left, 0, micro_batch_tokens));
  }
}

}  // namespace lockstep
