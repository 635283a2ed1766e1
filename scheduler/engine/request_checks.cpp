#include "scheduler/engine/request_checks.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace lockstep::scheduler {

namespace {

Status check_sampling(const SamplingParams& sampling) {
  // Written so that NaN fails too.
  if (!(sampling.temperature >= 0.0F && sampling.temperature <= 2.0F)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("temperature is {}, expected 0 to 2", sampling.temperature)};
  }
  if (sampling.temperature > 0.0F && sampling.temperature < 1e-3F) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("temperature is {}, expected 0 (greedy) or 0.001 to 2", sampling.temperature)};
  }
  if (!(sampling.top_p > 0.0F && sampling.top_p <= 1.0F)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("top_p is {}, expected more than 0 and at most 1", sampling.top_p)};
  }
  if (sampling.top_k < 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("top_k is {}, expected 0 (all) or more", sampling.top_k)};
  }
  if (!(sampling.min_p >= 0.0F && sampling.min_p <= 1.0F)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("min_p is {}, expected 0 to 1", sampling.min_p)};
  }
  if (!(sampling.repetition_penalty > 0.0F && sampling.repetition_penalty <= 10.0F)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("repetition_penalty is {}, expected more than 0 and at most 10", sampling.repetition_penalty)};
  }
  for (const auto& [name, value] : {std::pair("presence_penalty", sampling.presence_penalty), std::pair("frequency_penalty", sampling.frequency_penalty)}) {
    if (!(value >= -2.0F && value <= 2.0F)) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{} is {}, expected -2 to 2", name, value)};
    }
  }
  if (sampling.log_probabilities < -1 || sampling.log_probabilities > kLogProbabilitiesMax) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("log probabilities are asked for {} tokens, expected -1 (none) to {}", sampling.log_probabilities, kLogProbabilitiesMax)};
  }
  return {};
}

Status check_token_ids(std::string_view field, const std::vector<std::int32_t>& ids, std::int32_t vocabulary_size) {
  const auto unknown = std::ranges::find_if(ids, [vocabulary_size](std::int32_t id) { return id < 0 || id >= vocabulary_size; });
  if (unknown == ids.end()) {
    return {};
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("{} {} is {}, expected 0 to {}", field, unknown - ids.begin(), *unknown, vocabulary_size - 1)};
}

Status check_logit_bias(const std::vector<model::LogitBias>& biases, std::int32_t vocabulary_size) {
  if (biases.size() > kLogitBiasesMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("logit_bias has {} entries, expected at most {}", biases.size(), kLogitBiasesMax)};
  }
  for (const model::LogitBias& entry : biases) {
    if (entry.token < 0 || entry.token >= vocabulary_size) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("logit_bias names token {}, expected 0 to {}", entry.token, vocabulary_size - 1)};
    }
    if (!(entry.bias >= -100.0F && entry.bias <= 100.0F)) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("logit_bias of token {} is {}, expected -100 to 100", entry.token, entry.bias)};
    }
  }
  return {};
}

}  // namespace

Status check_request(const GenerationRequest& request, const RequestLimits& limits) {
  if (request.prompt_token_ids.empty()) {
    return Error{ErrorCode::kInvalidArgument, "the prompt has no tokens, expected at least one"};
  }
  if (request.pooling != Pooling::kNone && request.max_tokens != 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("max_tokens is {}, expected 0 for an embedding", request.max_tokens)};
  }
  if (request.scores_prompt && (request.pooling != Pooling::kNone || request.sampling.log_probabilities < 0)) {
    return Error{ErrorCode::kInvalidArgument, "the prompt is to be scored, which needs log probabilities to be asked for, and no embedding"};
  }
  if (request.pooling == Pooling::kNone && request.max_tokens < (request.scores_prompt ? 0 : 1)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("max_tokens is {}, expected at least 1", request.max_tokens)};
  }
  const auto prompt_tokens = static_cast<std::int64_t>(request.prompt_token_ids.size());
  const std::int64_t total = prompt_tokens + request.max_tokens;
  if (total > limits.max_model_len) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} prompt tokens and max_tokens {} make {}, but the context holds {} tokens: shorten the prompt or ask for fewer tokens",
                             prompt_tokens, request.max_tokens, total, limits.max_model_len)};
  }
  if (total > limits.kv_cache_tokens) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} prompt tokens and max_tokens {} make {}, but this rank's KV cache holds {} tokens: ask for fewer, or raise --kv-cache-memory",
                             prompt_tokens, request.max_tokens, total, limits.kv_cache_tokens)};
  }
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("min_tokens is {}, expected 0 to max_tokens, which is {}", request.min_tokens, request.max_tokens)};
  }
  LOCKSTEP_RETURN_IF_ERROR(check_token_ids("prompt token", request.prompt_token_ids, limits.vocabulary_size));
  LOCKSTEP_RETURN_IF_ERROR(check_token_ids("stop token", request.stop_token_ids, limits.vocabulary_size));
  LOCKSTEP_RETURN_IF_ERROR(check_logit_bias(request.sampling.logit_bias, limits.vocabulary_size));
  return check_sampling(request.sampling);
}

}  // namespace lockstep::scheduler
