// Sampler: from logits to a token, reproducibly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lockstep/model/token_counts.hpp"

namespace lockstep::model {

struct WeightScale;

/// What is added to one token's logit.
struct LogitBias {
  std::int32_t token = 0;
  float bias = 0.0F;
};

/// How one token is chosen; the daemon and the engine have checked the ranges. The steps are taken in this order: bias, forbidden tokens, penalties,
/// temperature, top-k, top-p, min-p. Each of the last three is of what the one before it left.
struct SamplerInput {
  float temperature = 1.0F;  ///< 0 is greedy
  std::int32_t top_k = 0;    ///< 0 is all
  float top_p = 1.0F;
  float min_p = 0.0F;                   ///< of the likeliest token's probability
  float repetition_penalty = 1.0F;      ///< of each token in prompt or output: a positive logit is divided, a negative one multiplied
  float presence_penalty = 0.0F;        ///< taken from the logit of each token in the output
  float frequency_penalty = 0.0F;       ///< taken from the logit for each time that the token is in the output
  const TokenCounts* counts = nullptr;  ///< of the sequence; null where no penalty asks for them
  std::span<const LogitBias> logit_bias{};
  std::span<const std::int32_t> forbidden{};  ///< tokens that must not be chosen
  std::uint64_t seed = 0;
  std::int64_t position = 0;          ///< of the new token in its sequence
  bool wants_log_probability = true;  ///< costs one more pass

  [[nodiscard]] bool has_penalty() const { return counts != nullptr && (repetition_penalty != 1.0F || presence_penalty != 0.0F || frequency_penalty != 0.0F); }
};

struct TokenLogProbability {
  std::int32_t token = -1;
  float log_probability = 0.0F;
};

struct SampledToken {
  std::int32_t id = 0;
  float log_probability = 0.0F;  ///< under the unmodified distribution (no step of SamplerInput taken); 0 where it was not wanted
  bool valid = true;             ///< false: the logits are no distribution, or every token is forbidden; `id` means nothing
};

/// Ownership  its scratch, which grows to the vocabulary once.      Threads  one at a time.
class Sampler {
 public:
  /// A NaN among the logits counts as impossible. Deterministic: the same logits and input give the same token on every rank; noise comes from (seed,
  /// position) alone. Greedy ties, and ties at the edge of top-k and top-p: the lowest id.
  /// Weights are rounded so that their sums are exact (device::weight_fraction_bits): who samples elsewhere, in another order, chooses the same token. What is
  /// less likely than the likeliest by 2^(bits + 1) is never drawn: with 150,000 tokens 7e10.
  /// Fills `top` with the likeliest tokens of the unmodified distribution, likeliest first; where there are fewer, the rest keep token -1.
  /// Cost  two passes for greedy; three, and the log of a few, for the rest; no allocation once warm.
  [[nodiscard]] SampledToken sample(std::span<const float> logits, const SamplerInput& input, std::span<TokenLogProbability> top = {});
  /// Of `token` under `logits` as they are; fills `top` as `sample` does. Nothing where the logits are no distribution.      Cost  two passes.
  [[nodiscard]] std::optional<float> log_probability(std::span<const float> logits, std::int32_t token, std::span<TokenLogProbability> top);

 private:
  struct Candidate {
    float value = 0.0F;  ///< logit or weight
    std::int32_t id = 0;
  };
  static bool more_likely(const Candidate& a, const Candidate& b) { return a.value != b.value ? a.value > b.value : a.id < b.id; }

  [[nodiscard]] float measure(std::span<const float> logits, float logit_max, std::int32_t token, std::span<TokenLogProbability> top);
  [[nodiscard]] std::span<const float> adjusted(std::span<const float> logits, const SamplerInput& input);
  [[nodiscard]] std::int32_t draw(std::span<const float> logits, const SamplerInput& input, float logit_max);
  [[nodiscard]] std::int32_t draw_from_all(double noise) const;
  [[nodiscard]] std::int32_t draw_from_candidates(double noise) const;
  void select_largest(std::span<const float> logits, std::size_t count);
  void weigh_all(std::span<const float> logits, const WeightScale& scale);
  void keep_top_p_of_all(float top_p);
  void keep_top_p_of_candidates(float top_p);

  std::vector<float> adjusted_;        ///< [vocabulary]
  std::vector<float> weights_;         ///< [vocabulary], exp((logit - largest) / temperature), rounded: the largest is 1
  std::vector<double> block_sums_;     ///< of the weights
  double total_ = 0.0;                 ///< of the weights
  std::vector<Candidate> candidates_;  ///< what the cuts left, in the order of the draw
};

}  // namespace lockstep::model
