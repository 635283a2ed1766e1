// Sampler: from logits to a token, reproducibly.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace lockstep::model {

/// How one token is chosen; the daemon and the engine have checked the ranges.
struct SamplerInput {
  float temperature = 1.0F;  ///< 0 is greedy
  std::int32_t top_k = 0;    ///< 0 is all
  float top_p = 1.0F;
  std::uint64_t seed = 0;
  std::int64_t position = 0;  ///< of the new token in its sequence
};

struct SampledToken {
  std::int32_t id = 0;
  float log_probability = 0.0F;  ///< under the unmodified distribution (temperature 1, nothing cut); NaN: the logits are no distribution
};

/// Ownership  its scratch, which grows to the vocabulary once.      Threads  one at a time.
class Sampler {
 public:
  /// A NaN among the logits counts as impossible; where the largest is not finite, `log_probability` is NaN and `id` means nothing.
  /// Deterministic: the same logits and input give the same token on every rank; noise comes from (seed, position) alone. Greedy ties: the lowest id.
  /// Cost  one pass for greedy; with top-k or top-p a partial sort.
  [[nodiscard]] SampledToken sample(std::span<const float> logits, const SamplerInput& input);

 private:
  [[nodiscard]] std::int32_t sample_with_noise(std::span<const float> logits, const SamplerInput& input, float logit_max);
  std::vector<std::pair<double, std::int32_t>> candidates_;  ///< unnormalized probability, id
};

}  // namespace lockstep::model
