// What makes a request acceptable to this engine.
#pragma once

#include "lockstep/core/result.hpp"
#include "lockstep/scheduler/request.hpp"

namespace lockstep::scheduler {

struct RequestLimits {
  std::int32_t vocabulary_size = 0;
  std::int32_t max_model_len = 0;  ///< tokens, prompt and generated
  std::int64_t kv_cache_tokens = 0;
};

/// Errors  kInvalidArgument: the field, its value, what was expected.
[[nodiscard]] Status check_request(const GenerationRequest& request, const RequestLimits& limits);

}  // namespace lockstep::scheduler
