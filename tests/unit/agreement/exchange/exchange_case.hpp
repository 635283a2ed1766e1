// One exchange with known answers: tokens have a number in the whole group, and everything follows from it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <vector>

#include "lockstep/comm/expert_exchange.hpp"

namespace lockstep::comm::testing {

inline std::uint32_t mix(std::uint32_t a, std::uint32_t b) {
  std::uint32_t state = a * 0x9e3779b9U + b * 0x85ebca6bU + 0x1234567U;
  state ^= state >> 15U;
  state *= 0xc2b2ae35U;
  return state ^ state >> 13U;
}

/// Values are bit patterns: the exchange must carry every one of them, NaNs included, and a bit pattern has no rounding to hide behind.
inline std::uint16_t token_bits(int token, int column, std::uint32_t salt) {
  return static_cast<std::uint16_t>(mix(static_cast<std::uint32_t>(token) + salt * 7919U, static_cast<std::uint32_t>(column)));
}

inline std::uint16_t expert_bits(int expert, std::uint16_t input, int column) {
  return static_cast<std::uint16_t>(input * 31U + static_cast<unsigned>(expert) * 977U + static_cast<unsigned>(column));
}

/// `top_k` different experts, ascending, by choosing from all with a token's own randomness.
inline std::vector<std::int32_t> experts_of_token(int token, int expert_count, int top_k, std::uint32_t salt) {
  std::vector<std::int32_t> chosen;
  int needed = top_k;
  for (int expert = 0; expert < expert_count && needed > 0; ++expert) {
    const auto left = static_cast<std::uint32_t>(expert_count - expert);
    if (mix(static_cast<std::uint32_t>(token * 131 + expert), salt) % left < static_cast<std::uint32_t>(needed)) {
      chosen.push_back(expert);
      --needed;
    }
  }
  return chosen;
}

struct ExchangeCase {
  int world = 1;
  int experts = 1;
  int top_k = 1;
  int hidden = 5;
  std::vector<std::int32_t> tokens{};  // [world]
  std::uint32_t salt = 0;

  [[nodiscard]] int first_token(int rank) const { return std::accumulate(tokens.begin(), tokens.begin() + rank, 0); }
  [[nodiscard]] int tokens_of(int rank) const { return tokens[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] DPMetadata metadata(int rank) const { return DPMetadata::make(world, rank, tokens_of(rank), tokens); }

  [[nodiscard]] std::vector<BFloat16> rows(int rank) const {
    std::vector<BFloat16> result;
    for (int token = first_token(rank); token < first_token(rank) + tokens_of(rank); ++token) {
      for (int column = 0; column < hidden; ++column) {
        result.emplace_back().bits = token_bits(token, column, salt);
      }
    }
    return result;
  }
  [[nodiscard]] std::vector<std::int32_t> expert_ids(int rank) const {
    std::vector<std::int32_t> result;
    for (int token = first_token(rank); token < first_token(rank) + tokens_of(rank); ++token) {
      const auto chosen = experts_of_token(token, experts, top_k, salt);
      result.insert(result.end(), chosen.begin(), chosen.end());
    }
    return result;
  }
  /// Powers of two: a product with one is exact, whether it is fused with the sum or not.
  [[nodiscard]] std::vector<float> weights(int rank) const {
    std::vector<float> result;
    for (int slot = first_token(rank) * top_k; slot < (first_token(rank) + tokens_of(rank)) * top_k; ++slot) {
      result.push_back(1.0F / static_cast<float>(1U << (static_cast<unsigned>(slot) % 4U)));
    }
    return result;
  }
  /// What `combined` must hold, computed without any exchange.
  [[nodiscard]] std::vector<std::uint16_t> expected_combined(int rank) const {
    std::vector<std::uint16_t> result;
    for (int token = first_token(rank); token < first_token(rank) + tokens_of(rank); ++token) {
      for (const std::int32_t expert : experts_of_token(token, experts, top_k, salt)) {
        for (int column = 0; column < hidden; ++column) {
          result.push_back(expert_bits(expert, token_bits(token, column, salt), column));
        }
      }
    }
    return result;
  }
  /// The same where each member sums its experts' outputs: a token's sums by ascending member, then zeros.
  [[nodiscard]] std::vector<BFloat16> expected_sums(int rank, const Placement& placement) const {
    int members_with_experts = 0;
    for (int member = 0; member < world; ++member) {
      members_with_experts += placement.experts_of(member).empty() ? 0 : 1;
    }
    const auto sums_of_token = static_cast<std::size_t>(std::min(top_k, members_with_experts) * hidden);
    const std::vector<float> weight = weights(rank);
    std::vector<BFloat16> result;
    for (int token = 0; token < tokens_of(rank); ++token) {
      std::map<int, std::vector<float>> sums;
      std::size_t slot = static_cast<std::size_t>(token) * static_cast<std::size_t>(top_k);
      for (const std::int32_t expert : experts_of_token(first_token(rank) + token, experts, top_k, salt)) {
        std::vector<float>& sum = sums.try_emplace(placement.holders(expert)[0], hidden, 0.0F).first->second;
        for (int column = 0; column < hidden; ++column) {
          BFloat16 output;
          output.bits = expert_bits(expert, token_bits(first_token(rank) + token, column, salt), column);
          sum[static_cast<std::size_t>(column)] += weight[slot] * static_cast<float>(output);
        }
        ++slot;
      }
      const std::size_t end = result.size() + sums_of_token;
      for (const auto& [member, sum] : sums) {
        for (const float value : sum) {
          result.emplace_back(value);
        }
      }
      result.resize(end, BFloat16(0.0F));
    }
    return result;
  }
};

/// The experts' work on what was received.
inline void compute_experts(ExpertExchange& exchange, std::span<const std::int32_t> my_experts, int hidden) {
  const ReceivedRows received = exchange.received();
  const std::span<BFloat16> outputs = exchange.outputs();
  for (std::size_t local = 0; local < my_experts.size(); ++local) {
    for (std::int32_t row = received.offsets[local]; row < received.offsets[local + 1]; ++row) {
      for (int column = 0; column < hidden; ++column) {
        const auto at = static_cast<std::size_t>(row) * static_cast<std::size_t>(hidden) + static_cast<std::size_t>(column);
        outputs[at].bits = expert_bits(my_experts[local], received.rows[at].bits, column);
      }
    }
  }
}

inline std::vector<std::uint16_t> bits_of(std::span<const BFloat16> values) {
  std::vector<std::uint16_t> result;
  for (const BFloat16 value : values) {
    result.push_back(value.bits);
  }
  return result;
}

}  // namespace lockstep::comm::testing
