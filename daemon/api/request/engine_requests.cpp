#include "daemon/api/request/engine_requests.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace lockstep::daemon {

std::uint64_t choice_seed(std::uint64_t seed, std::int32_t choice) {
  if (choice == 0) {
    return seed;
  }
  // SplitMix64's finalizer over both: seeds s and s + 1 must not share texts.
  std::uint64_t word = seed ^ (static_cast<std::uint64_t>(choice) * 0x9e3779b97f4a7c15ULL);
  word = (word ^ (word >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  word = (word ^ (word >> 27U)) * 0x94d049bb133111ebULL;
  return word ^ (word >> 31U);
}

namespace {

/// Tokens to generate after a prompt.
std::int32_t max_tokens_of(const GenerationJob& job, std::int64_t prompt_tokens, std::int32_t max_request_tokens) {
  return job.max_tokens.value_or(std::min(job.default_max_tokens, max_request_tokens - static_cast<std::int32_t>(prompt_tokens)));
}

}  // namespace

std::optional<ApiError> job_refusal(const GenerationJob& job, std::int32_t max_request_tokens) {
  const auto refuse = [&job](std::string message) {
    return ApiError{.status = 400, .message = std::move(message), .code = "context_length_exceeded", .param = std::string(job.prompt_field)};
  };
  for (const std::vector<std::int32_t>& prompt : job.prompts) {
    const auto prompt_tokens = static_cast<std::int64_t>(prompt.size());
    if (prompt_tokens + (job.max_tokens == 0 ? 0 : 1) > max_request_tokens) {
      return refuse(fmt::format("the prompt has {} tokens, but prompt and answer together may have {}: shorten the prompt", prompt_tokens, max_request_tokens));
    }
    if (const std::int64_t total = prompt_tokens + job.max_tokens.value_or(0); total > max_request_tokens) {
      return refuse(fmt::format("{} prompt tokens and max_tokens {} make {}, but prompt and answer together may have {}: shorten the prompt or ask for fewer",
                                prompt_tokens, *job.max_tokens, total, max_request_tokens));
    }
    if (const std::int32_t max_tokens = max_tokens_of(job, prompt_tokens, max_request_tokens); job.min_tokens > max_tokens) {
      return ApiError{.status = 400,
                      .message = fmt::format("min_tokens is {}, expected at most max_tokens, which is {}", job.min_tokens, max_tokens),
                      .code = "invalid_value",
                      .param = "min_tokens"};
    }
  }
  return std::nullopt;
}

std::vector<scheduler::GenerationRequest> make_engine_requests(GenerationId id, const GenerationJob& job, std::int32_t max_request_tokens) {
  std::vector<scheduler::GenerationRequest> requests;
  requests.reserve(job.choice_count());
  for (const std::vector<std::int32_t>& prompt : job.prompts) {
    for (std::int32_t choice = 0; choice < job.choices_per_prompt; ++choice) {
      scheduler::GenerationRequest& request = requests.emplace_back();
      request.id = request_id_of(id, requests.size() - 1);
      request.prompt_token_ids = prompt;
      request.sampling = job.sampling;
      request.sampling.seed = choice_seed(job.sampling.seed, choice);
      request.max_tokens = max_tokens_of(job, static_cast<std::int64_t>(prompt.size()), max_request_tokens);
      request.min_tokens = job.min_tokens;
      request.ignore_eos = job.ignore_eos;
      request.stop_token_ids = job.stop_token_ids;
      request.scores_prompt = job.scores_prompts;
    }
  }
  return requests;
}

}  // namespace lockstep::daemon
