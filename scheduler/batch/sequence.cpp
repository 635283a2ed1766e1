#include "scheduler/batch/sequence.hpp"

#include <algorithm>
#include <iterator>

#include "scheduler/batch/kv_cache.hpp"

namespace lockstep::scheduler {

namespace {

bool has_penalty(const SamplingParams& sampling) {
  return sampling.repetition_penalty != 1.0F || sampling.presence_penalty != 0.0F || sampling.frequency_penalty != 0.0F;
}

}  // namespace

std::unique_ptr<Sequence> accept_request(GenerationRequest& request, const model::ModelConfig& config, TimePoint arrival) {
  auto sequence = std::make_unique<Sequence>();
  sequence->arrival = arrival;
  sequence->prompt_tokens = static_cast<std::int32_t>(request.prompt_token_ids.size());
  sequence->prefill_tokens = sequence->prompt_tokens;
  sequence->tokens.reserve(request.prompt_token_ids.size() + static_cast<std::size_t>(request.max_tokens));
  sequence->tokens.assign(request.prompt_token_ids.begin(), request.prompt_token_ids.end());
  request.prompt_token_ids = {};
  sequence->end_token_ids = request.stop_token_ids;
  if (!request.ignore_eos) {
    // A model's files may name end tokens that it cannot give.
    std::ranges::copy_if(config.end_token_ids, std::back_inserter(sequence->end_token_ids),
                         [&config](std::int32_t id) { return id >= 0 && id < config.vocabulary_size; });
  }
  sequence->has_counts = has_penalty(request.sampling);
  if (sequence->has_counts) {
    sequence->counts = model::TokenCounts(sequence->tokens, request.max_tokens, config.vocabulary_size);
  }
  if (request.pooling != Pooling::kNone) {
    sequence->pooled.assign(static_cast<std::size_t>(config.hidden_size), 0.0F);
  }
  sequence->request = std::move(request);
  sequence->blocks.reserve(static_cast<std::size_t>(KvCache::blocks_for(sequence->rows_wanted())));
  return sequence;
}

model::SamplerInput sampler_input(const Sequence& sequence) {
  const GenerationRequest& request = sequence.request;
  const SamplingParams& sampling = request.sampling;
  model::SamplerInput input{.temperature = sampling.temperature,
                            .top_k = sampling.top_k,
                            .top_p = sampling.top_p,
                            .min_p = sampling.min_p,
                            .repetition_penalty = sampling.repetition_penalty,
                            .presence_penalty = sampling.presence_penalty,
                            .frequency_penalty = sampling.frequency_penalty,
                            .counts = sequence.has_counts ? &sequence.counts : nullptr,
                            .logit_bias = sampling.logit_bias,
                            .seed = sampling.seed,
                            .position = static_cast<std::int64_t>(sequence.tokens.size()),
                            .wants_log_probability = sampling.log_probabilities >= 0};
  if (sequence.generated() < request.min_tokens) {
    input.forbidden = sequence.end_token_ids;
  }
  return input;
}

}  // namespace lockstep::scheduler
