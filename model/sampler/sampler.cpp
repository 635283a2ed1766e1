#include "lockstep/model/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lockstep::model {

namespace {

/// SplitMix64's finalizer: a bijection that spreads every input bit.      Source  Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31U);
}

/// Uniform in [0, 1), 53 bits, from (seed, position) alone.
double uniform_noise(std::uint64_t seed, std::int64_t position) {
  constexpr std::uint64_t kGoldenGamma = 0x9e3779b97f4a7c15ULL;
  const std::uint64_t word = mix(mix(seed + kGoldenGamma) + static_cast<std::uint64_t>(position + 1) * kGoldenGamma);
  return static_cast<double>(word >> 11U) * 0x1.0p-53;
}

/// The first of the largest logits; NaN is never larger. 0 when none is a number.
std::size_t index_of_largest(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t id = 1; id < logits.size(); ++id) {
    if (logits[id] > logits[best] || (std::isnan(logits[best]) && !std::isnan(logits[id]))) {
      best = id;
    }
  }
  return best;
}

/// A NaN among the candidates would leave their order undefined: sorting them is then undefined behaviour.
double probability_or_zero(double probability) {
  return probability >= 0.0 ? probability : 0.0;
}

bool more_probable(const std::pair<double, std::int32_t>& a, const std::pair<double, std::int32_t>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

}  // namespace

SampledToken Sampler::sample(std::span<const float> logits, const SamplerInput& input) {
  const std::size_t largest = index_of_largest(logits);
  const float logit_max = logits[largest];
  SampledToken result;
  result.id = static_cast<std::int32_t>(largest);
  if (!std::isfinite(logit_max)) {  // no distribution: NaN tells the caller
    result.log_probability = std::numeric_limits<float>::quiet_NaN();
    return result;
  }
  if (input.temperature > 0.0F) {
    result.id = sample_with_noise(logits, input, logit_max);
  }
  double sum = 0.0;
  for (const float logit : logits) {
    sum += probability_or_zero(std::exp(static_cast<double>(logit - logit_max)));
  }
  result.log_probability = static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(result.id)] - logit_max) - std::log(sum));
  return result;
}

std::int32_t Sampler::sample_with_noise(std::span<const float> logits, const SamplerInput& input, float logit_max) {
  candidates_.clear();
  const double scale = 1.0 / static_cast<double>(input.temperature);
  for (std::size_t id = 0; id < logits.size(); ++id) {
    candidates_.emplace_back(probability_or_zero(std::exp(static_cast<double>(logits[id] - logit_max) * scale)), static_cast<std::int32_t>(id));
  }
  if (input.top_k > 0 && static_cast<std::size_t>(input.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + input.top_k - 1, candidates_.end(), more_probable);
    candidates_.resize(static_cast<std::size_t>(input.top_k));
  }
  // Sums in the order of probability: the same whatever selected the candidates.
  const bool ordered = input.top_p < 1.0F || input.top_k > 0;
  if (ordered) {
    std::sort(candidates_.begin(), candidates_.end(), more_probable);
  }
  double total = 0.0;
  for (const auto& candidate : candidates_) {
    total += candidate.first;
  }
  if (input.top_p < 1.0F) {
    double kept = 0.0;
    std::size_t count = 0;
    while (count < candidates_.size() && kept < static_cast<double>(input.top_p) * total) {
      kept += candidates_[count++].first;
    }
    candidates_.resize(std::max<std::size_t>(count, 1));
    total = std::max(kept, candidates_.front().first);
  }
  double left = uniform_noise(input.seed, input.position) * total;
  std::int32_t chosen = candidates_.front().second;
  for (const auto& [probability, id] : candidates_) {
    if (probability > 0.0) {  // where rounding leaves a sliver at the end, the last possible candidate owns it
      chosen = id;
      left -= probability;
      if (left < 0.0) {
        break;
      }
    }
  }
  return chosen;
}

}  // namespace lockstep::model
