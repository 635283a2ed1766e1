// make_engine_requests: one request of the engine for each choice of each prompt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "daemon/api/request/generation_job.hpp"
#include "daemon/http/error_body.hpp"
#include "lockstep/scheduler/request.hpp"

namespace lockstep::daemon {

using GenerationId = std::uint64_t;

// The engine's ids name generation and choice.
[[nodiscard]] inline scheduler::RequestId request_id_of(GenerationId generation, std::size_t choice) {
  return generation * kChoicesMax + choice;
}
[[nodiscard]] inline GenerationId generation_of(scheduler::RequestId id) {
  return id / kChoicesMax;
}
[[nodiscard]] inline std::size_t choice_of(scheduler::RequestId id) {
  return id % kChoicesMax;
}

/// The seed of one choice: a prompt's first has the request's own, so that it is the text that n = 1 gives.
[[nodiscard]] std::uint64_t choice_seed(std::uint64_t seed, std::int32_t choice);

/// What of a job only the engine's limits tell to be wrong. 400 `context_length_exceeded`, by which clients know to shorten their prompt, where a prompt leaves
/// no room for a token, or for max_tokens; 400 where min_tokens are more than may be generated. To be asked before make_engine_requests: a prompt that cannot
/// be served may be megabytes, and n copies of it more than the memory.
[[nodiscard]] std::optional<ApiError> job_refusal(const GenerationJob& job, std::int32_t max_request_tokens);

/// Choice c of prompt p has the index p * choices_per_prompt + c. Where max_tokens is left open, as much of the default as fits beside the prompt.
/// `max_request_tokens` as Engine::max_request_tokens. The job must have passed `job_refusal`; the rest is the engine's to check.
/// Cost  a copy of each prompt for each choice.
[[nodiscard]] std::vector<scheduler::GenerationRequest> make_engine_requests(GenerationId id, const GenerationJob& job, std::int32_t max_request_tokens);

}  // namespace lockstep::daemon
