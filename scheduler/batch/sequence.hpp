// Sequence: one accepted request on its way through the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lockstep/core/deadline.hpp"
#include "lockstep/scheduler/request.hpp"

namespace lockstep::scheduler {

/// Owned by the batch planner; the step batch points at it for one step.
struct Sequence {
  GenerationRequest request;         ///< its prompt has moved to `tokens`
  std::vector<std::int32_t> tokens;  ///< prompt, then generated; capacity for both from the start
  std::vector<std::int32_t> blocks;  ///< KV blocks in order of position; all that it will ever need, from admission on
  std::int32_t prompt_tokens = 0;
  std::int32_t computed = 0;  ///< tokens whose keys and values are in the cache
  std::int32_t prefill_chunks = 0;
  TimePoint arrival{};
  TimePoint admitted{};
  TimePoint first_token{};  ///< zero before the first
  TimePoint last_token{};

  [[nodiscard]] std::int32_t generated() const { return static_cast<std::int32_t>(tokens.size()) - prompt_tokens; }
  [[nodiscard]] std::int32_t pending() const { return static_cast<std::int32_t>(tokens.size()) - computed; }
};

}  // namespace lockstep::scheduler
