#include "lockstep/model/token_choice_list.hpp"

#include "model/sampler/noise.hpp"

namespace lockstep::model {

TokenChoiceList::TokenChoiceList(std::int32_t rows_max, std::size_t changes_max) {
  choices_.reserve(static_cast<std::size_t>(rows_max));
  changes_.reserve(changes_max);
}

void TokenChoiceList::clear() {
  choices_.clear();
  changes_.clear();
}

bool TokenChoiceList::add(const SamplerInput& input, std::int32_t logit_row) {
  const std::span<const TokenCounts::Entry> counted = input.has_penalty() ? input.counts->entries() : std::span<const TokenCounts::Entry>();
  const std::size_t changes = input.logit_bias.size() + input.forbidden.size() + counted.size();
  if (choices_.size() == choices_.capacity() || changes > changes_.capacity() - changes_.size()) {
    return false;
  }
  choices_.push_back({.noise = uniform_noise(input.seed, input.position),
                      .logit_row = logit_row,
                      .first_change = static_cast<std::int32_t>(changes_.size()),
                      .biases = static_cast<std::int32_t>(input.logit_bias.size()),
                      .forbidden = static_cast<std::int32_t>(input.forbidden.size()),
                      .counted = static_cast<std::int32_t>(counted.size()),
                      .inverse_temperature = input.temperature > 0.0F ? 1.0F / input.temperature : 0.0F,
                      .top_k = input.top_k,
                      .top_p = input.top_p,
                      .min_p = input.min_p,
                      .repetition_penalty = input.repetition_penalty,
                      .presence_penalty = input.presence_penalty,
                      .frequency_penalty = input.frequency_penalty});
  for (const LogitBias& bias : input.logit_bias) {
    changes_.push_back({.token = bias.token, .value = bias.bias});
  }
  for (const std::int32_t token : input.forbidden) {
    changes_.push_back({.token = token});
  }
  for (const TokenCounts::Entry& entry : counted) {
    changes_.push_back({.token = entry.token, .value = static_cast<float>(entry.output_count)});
  }
  return true;
}

}  // namespace lockstep::model
