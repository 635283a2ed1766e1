// Sequence: one accepted request on its way through the engine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "lockstep/core/deadline.hpp"
#include "lockstep/model/model_config.hpp"
#include "lockstep/model/sampler.hpp"
#include "lockstep/model/token_counts.hpp"
#include "lockstep/scheduler/request.hpp"

namespace lockstep::scheduler {

/// Owned by the batch planner; step batches point at it until they are computed.
struct Sequence {
  GenerationRequest request;                ///< its prompt has moved to `tokens`
  std::vector<std::int32_t> tokens;         ///< prompt, then generated; capacity for both from the start
  std::vector<std::int32_t> end_token_ids;  ///< the model's, unless ignored, and the request's own
  model::TokenCounts counts;                ///< where `has_counts`
  bool has_counts = false;                  ///< a penalty asks for them
  std::vector<std::int32_t> blocks;         ///< KV blocks in order of position, of the tokens that have had a row at least; capacity for all from the start
  std::vector<float> pooled;                ///< [hidden size], the sum over the rows so far, where the request pools
  std::int32_t prompt_tokens = 0;
  std::int32_t prefill_tokens = 0;  ///< the first ones, computed in chunks: the prompt's, and after a preemption all that there were
  std::int32_t scored = 0;          ///< of the prompt, tokens that came back with their log probabilities
  std::int32_t computed = 0;        ///< tokens whose keys and values are in the cache
  std::int32_t planned = 0;         ///< tokens that have had a row: the computed ones, and those in batches that are not computed yet
  std::int32_t batches = 0;         ///< not computed yet, with rows of it
  std::int32_t tokens_due = 0;      ///< of these, how many will give a token
  bool was_preempted = false;       ///< once at least
  bool ended = false;               ///< its caller has the last event: what is still computed of it is dropped
  std::int32_t prefill_chunks = 0;
  TimePoint arrival{};
  TimePoint admitted{};
  TimePoint first_token{};  ///< zero before the first
  TimePoint last_token{};

  [[nodiscard]] std::int32_t generated() const { return static_cast<std::int32_t>(tokens.size()) - prompt_tokens; }
  /// Rows of the longest text that it can become: the token that makes max_tokens needs none.
  [[nodiscard]] std::int32_t rows_wanted() const { return prompt_tokens + std::max(request.max_tokens, 1) - 1; }
  /// Tokens without a row yet, with those that are due: whether one of these ends the text is not known, unless it makes max_tokens.
  [[nodiscard]] std::int32_t pending() const { return std::min(static_cast<std::int32_t>(tokens.size()) + tokens_due, rows_wanted()) - planned; }
  /// A batch with `rows` of it, which gave a token or not, is computed.
  void complete(std::int32_t rows, bool sampled) {
    computed += rows;
    --batches;
    tokens_due -= sampled ? 1 : 0;
  }
  /// Its blocks are gone, and no batch has rows of it: all tokens so far are computed again, as a prompt is.
  void restart() {
    prefill_tokens = static_cast<std::int32_t>(tokens.size());
    computed = 0;
    planned = 0;
    std::ranges::fill(pooled, 0.0F);
  }
};

/// Makes the sequence of a checked request, which is moved from, with all the memory that it will ever need: no step allocates for it.
[[nodiscard]] std::unique_ptr<Sequence> accept_request(GenerationRequest& request, const model::ModelConfig& config, TimePoint arrival);
/// How the next token of `sequence` is chosen; points into it.
[[nodiscard]] model::SamplerInput sampler_input(const Sequence& sequence);

}  // namespace lockstep::scheduler
