#include "scheduler/engine/request_checks.hpp"

#include <algorithm>

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
  return {};
}

}  // namespace

Status check_request(const GenerationRequest& request, const RequestLimits& limits) {
  if (request.prompt_token_ids.empty()) {
    return Error{ErrorCode::kInvalidArgument, "the prompt has no tokens, expected at least one"};
  }
  if (request.max_tokens < 1) {
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
  const auto unknown = std::ranges::find_if(request.prompt_token_ids, [&limits](std::int32_t id) { return id < 0 || id >= limits.vocabulary_size; });
  if (unknown != request.prompt_token_ids.end()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("prompt token {} is {}, expected 0 to {}", unknown - request.prompt_token_ids.begin(), *unknown, limits.vocabulary_size - 1)};
  }
  return check_sampling(request.sampling);
}

}  // namespace lockstep::scheduler
