#include "lockstep/model/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lockstep/device/token_sampler.hpp"
#include "model/sampler/noise.hpp"
#include "model/sampler/row_math.hpp"

namespace lockstep::model {

namespace {

constexpr std::size_t kBlock = 256;  // weights summed together: a draw skips whole blocks
constexpr float kImpossible = -std::numeric_limits<float>::infinity();

float penalized(float logit, std::int32_t output_count, const SamplerInput& input) {
  float result = logit > 0.0F ? logit / input.repetition_penalty : logit * input.repetition_penalty;
  if (output_count > 0) {
    result -= input.presence_penalty + input.frequency_penalty * static_cast<float>(output_count);
  }
  return result;
}

/// A finite logit stays finite whatever is done to it: infinity would look like damaged weights.
float changed_within_range(float logit, float changed) {
  return std::isfinite(logit) ? std::clamp(changed, std::numeric_limits<float>::lowest(), std::numeric_limits<float>::max()) : logit;
}

}  // namespace

SampledToken Sampler::sample(std::span<const float> logits, const SamplerInput& input, std::span<TokenLogProbability> top) {
  const float logit_max = row_math().largest(logits);
  if (!std::isfinite(logit_max)) {
    return {.valid = false};
  }
  candidates_.reserve(logits.size());
  const std::span<const float> row = adjusted(logits, input);
  const float row_max = row.data() == logits.data() ? logit_max : row_math().largest(row);
  if (!std::isfinite(row_max)) {
    return {.valid = false};
  }
  SampledToken result;
  result.id = input.temperature > 0.0F ? draw(row, input, row_max) : static_cast<std::int32_t>(std::ranges::find(row, row_max) - row.begin());
  if (!input.wants_log_probability && top.empty()) {
    return result;
  }
  result.log_probability = measure(logits, logit_max, result.id, top);
  return result;
}

std::optional<float> Sampler::log_probability(std::span<const float> logits, std::int32_t token, std::span<TokenLogProbability> top) {
  const float logit_max = row_math().largest(logits);
  if (!std::isfinite(logit_max)) {
    return std::nullopt;
  }
  candidates_.reserve(logits.size());
  return measure(logits, logit_max, token, top);
}

/// The log probability of `token`, and `top`, under the unmodified distribution.
float Sampler::measure(std::span<const float> logits, float logit_max, std::int32_t token, std::span<TokenLogProbability> top) {
  weigh_all(logits, {.logit_max = logit_max});
  const double log_total = std::log(total_);
  const auto log_probability_of = [&](float logit) { return static_cast<float>(static_cast<double>(logit - logit_max) - log_total); };
  if (!top.empty()) {
    select_largest(logits, top.size());
    std::ranges::fill(top, TokenLogProbability{});
    std::ranges::transform(candidates_, top.begin(), [&](const Candidate& candidate) {
      return TokenLogProbability{.token = candidate.id, .log_probability = log_probability_of(candidate.value)};
    });
  }
  return log_probability_of(logits[static_cast<std::size_t>(token)]);
}

/// The logits after bias, forbidden tokens and penalties: the row itself where nothing of it is asked for.
std::span<const float> Sampler::adjusted(std::span<const float> logits, const SamplerInput& input) {
  const bool penalizes = input.has_penalty();
  if (!penalizes && input.logit_bias.empty() && input.forbidden.empty()) {
    return logits;
  }
  adjusted_.assign(logits.begin(), logits.end());
  for (const LogitBias& change : input.logit_bias) {
    float& logit = adjusted_[static_cast<std::size_t>(change.token)];
    logit = changed_within_range(logit, logit + change.bias);
  }
  for (const std::int32_t token : input.forbidden) {
    adjusted_[static_cast<std::size_t>(token)] = kImpossible;
  }
  if (penalizes) {
    for (const TokenCounts::Entry& entry : input.counts->entries()) {
      float& logit = adjusted_[static_cast<std::size_t>(entry.token)];
      logit = changed_within_range(logit, penalized(logit, entry.output_count, input));
    }
  }
  return adjusted_;
}

std::int32_t Sampler::draw(std::span<const float> logits, const SamplerInput& input, float logit_max) {
  const WeightScale scale{.logit_max = logit_max,
                          .inverse_temperature = 1.0F / input.temperature,
                          .rounding_addend = device::weight_rounding_addend(static_cast<std::int64_t>(logits.size()))};
  const double noise = uniform_noise(input.seed, input.position);
  if (input.top_k > 0 && static_cast<std::size_t>(input.top_k) < logits.size()) {
    select_largest(logits, static_cast<std::size_t>(input.top_k));
    for (Candidate& candidate : candidates_) {
      row_math().exponentials({&candidate.value, 1}, scale, &candidate.value);
    }
    if (input.top_p < 1.0F) {
      keep_top_p_of_candidates(input.top_p);
    }
  } else {
    weigh_all(logits, scale);
    if (input.top_p < 1.0F) {
      keep_top_p_of_all(input.top_p);
    } else if (input.min_p > 0.0F) {
      candidates_.clear();
      for (std::size_t id = 0; id < weights_.size(); ++id) {
        if (weights_[id] >= input.min_p) {
          candidates_.push_back({.value = weights_[id], .id = static_cast<std::int32_t>(id)});
        }
      }
    } else {
      return draw_from_all(noise);
    }
  }
  // The likeliest token weighs 1 and is always among the candidates.
  std::erase_if(candidates_, [&input](const Candidate& candidate) { return candidate.value < input.min_p; });
  return draw_from_candidates(noise);
}

/// The `count` largest numbers as candidates, largest first; fewer where there are fewer.
void Sampler::select_largest(std::span<const float> logits, std::size_t count) {
  candidates_.clear();
  std::size_t id = 0;
  for (; id < logits.size() && candidates_.size() < count; ++id) {
    if (!std::isnan(logits[id])) {
      candidates_.push_back({.value = logits[id], .id = static_cast<std::int32_t>(id)});
    }
  }
  std::ranges::make_heap(candidates_, more_likely);  // the least likely is at the front
  for (; id < logits.size(); ++id) {
    if (logits[id] > candidates_.front().value) {  // of equals the lower id, which came before, stays
      std::ranges::pop_heap(candidates_, more_likely);
      candidates_.back() = {.value = logits[id], .id = static_cast<std::int32_t>(id)};
      std::ranges::push_heap(candidates_, more_likely);
    }
  }
  std::ranges::sort_heap(candidates_, more_likely);
}

void Sampler::weigh_all(std::span<const float> logits, const WeightScale& scale) {
  weights_.resize(logits.size());
  row_math().exponentials(logits, scale, weights_.data());
  block_sums_.clear();
  total_ = 0.0;
  for (std::size_t begin = 0; begin < weights_.size(); begin += kBlock) {
    block_sums_.push_back(row_math().sum(std::span(weights_).subspan(begin, std::min(kBlock, weights_.size() - begin))));
    total_ += block_sums_.back();
  }
}

/// The fewest likeliest tokens whose weights reach top_p of all, likeliest first.
void Sampler::keep_top_p_of_all(float top_p) {
  // All tokens below this together cannot hold 1 - top_p of the total: they come after the last one that is kept.
  const double negligible = (1.0 - static_cast<double>(top_p)) * total_ / static_cast<double>(weights_.size());
  const auto least = static_cast<float>(negligible * 0.999);  // rounding must not take one that counts
  candidates_.clear();
  for (std::size_t id = 0; id < weights_.size(); ++id) {
    if (weights_[id] >= least && weights_[id] > 0.0F) {
      candidates_.push_back({.value = weights_[id], .id = static_cast<std::int32_t>(id)});
    }
  }
  // Taken from a heap one by one, since few are kept: each lands before the one taken earlier.
  const auto less_likely = [](const Candidate& a, const Candidate& b) { return more_likely(b, a); };
  std::ranges::make_heap(candidates_, less_likely);
  const double wanted = static_cast<double>(top_p) * total_;
  double kept = 0.0;
  auto first = candidates_.end();
  while (first != candidates_.begin() && (kept < wanted || first == candidates_.end())) {
    std::ranges::pop_heap(candidates_.begin(), first, less_likely);
    --first;
    kept += static_cast<double>(first->value);
  }
  candidates_.erase(candidates_.begin(), first);
  std::ranges::reverse(candidates_);
}

void Sampler::keep_top_p_of_candidates(float top_p) {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) {
    total += static_cast<double>(candidate.value);
  }
  const double wanted = static_cast<double>(top_p) * total;
  double kept = 0.0;
  std::size_t count = 0;
  while (count < candidates_.size() && (kept < wanted || count == 0)) {
    kept += static_cast<double>(candidates_[count++].value);
  }
  candidates_.resize(count);
}

/// The inverse of the distribution function in the order of ids.
std::int32_t Sampler::draw_from_all(double noise) const {
  double left = noise * total_;
  std::size_t block = 0;
  for (std::size_t i = 0; i < block_sums_.size(); ++i) {
    if (block_sums_[i] > 0.0) {  // where rounding leaves a sliver at the end, the last possible one owns it
      block = i;
      if (left < block_sums_[i]) {
        break;
      }
      left -= block_sums_[i];
    }
  }
  std::size_t chosen = block * kBlock;
  for (std::size_t id = chosen; id < std::min(weights_.size(), (block + 1) * kBlock); ++id) {
    if (weights_[id] > 0.0F) {
      chosen = id;
      left -= static_cast<double>(weights_[id]);
      if (left < 0.0) {
        break;
      }
    }
  }
  return static_cast<std::int32_t>(chosen);
}

/// The same in the order of the candidates.
std::int32_t Sampler::draw_from_candidates(double noise) const {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) {
    total += static_cast<double>(candidate.value);
  }
  double left = noise * total;
  std::int32_t chosen = candidates_.front().id;
  for (const Candidate& candidate : candidates_) {
    if (candidate.value > 0.0F) {
      chosen = candidate.id;
      left -= static_cast<double>(candidate.value);
      if (left < 0.0) {
        break;
      }
    }
  }
  return chosen;
}

}  // namespace lockstep::model
