// TokenSampler: the choice of tokens from logits that lie in a device's memory.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace lockstep::device {

class Stream;

/// Weights of tokens, of which the largest is 1, are rounded to multiples of 2^-bits: then the sum of any of a vocabulary's weights is exact in double, and as
/// a number of these multiples in 53 bits. So it does not matter who adds them in which order. At most 46 bits: then 1 stays 1.
[[nodiscard]] constexpr int weight_fraction_bits(std::int64_t vocabulary) {
  const int bits = 53 - static_cast<int>(std::bit_width(static_cast<std::uint64_t>(vocabulary)));
  return bits < 46 ? bits : 46;
}
/// Rounds a weight w in [0, 1] so: (w + addend) - addend, in float.
[[nodiscard]] constexpr float weight_rounding_addend(std::int64_t vocabulary) {
  const int exponent = 23 - weight_fraction_bits(vocabulary);  // the last of a float's 24 bits is 2^-bits then
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23U);
}

/// What is done to the logit of one token. What it is depends on where in the list of changes it stands.
struct LogitChange {
  std::int32_t token = 0;
  float value = 0.0F;  ///< a bias: what is added; a forbidden token: not read; a token of the text: how often it was generated
};

/// How one token is chosen, with all that the choice depends on; model::SamplerInput says what each number does.
struct TokenChoice {
  double noise = 0.0;             ///< [0, 1)
  std::int32_t logit_row = 0;     ///< of the logits that it is chosen from; no two choices share one
  std::int32_t first_change = 0;  ///< of the changes: first biases, then forbidden tokens, then tokens of the text
  std::int32_t biases = 0;        ///< made one after the other
  std::int32_t forbidden = 0;
  std::int32_t counted = 0;          ///< tokens of the text, each once; 0 where no penalty is asked for
  float inverse_temperature = 0.0F;  ///< 0 is greedy
  std::int32_t top_k = 0;            ///< 0 is all
  float top_p = 1.0F;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
};
static_assert(std::is_trivially_copyable_v<TokenChoice> && sizeof(TokenChoice) % alignof(TokenChoice) == 0);

/// The token of a row that is no distribution (its largest logit is not finite), or whose tokens are all forbidden.
inline constexpr std::int32_t kNoToken = -1;

/// Rows of logits, and how a token is chosen from some of them.
struct TokenChoices {
  float* logits = nullptr;  ///< [*, vocabulary], on the device; changed where a choice has changes
  std::int64_t vocabulary = 0;
  const TokenChoice* choices = nullptr;  ///< [count], on the device
  std::int64_t count = 0;
  const LogitChange* changes = nullptr;  ///< on the device
};

/// Of ops whose device's memory the host does not see (Ops::token_sampler).      Ownership, threads  the ops'.
class TokenSampler {
 public:
  virtual ~TokenSampler() = default;
  TokenSampler(const TokenSampler&) = delete;
  TokenSampler& operator=(const TokenSampler&) = delete;
  /// tokens[i], on the device: the one of choices[i], which is the one that model::Sampler chooses from the same logits.
  virtual void sample(Stream& stream, const TokenChoices& choices, std::int32_t* tokens) = 0;

 protected:
  TokenSampler() = default;
};

}  // namespace lockstep::device
