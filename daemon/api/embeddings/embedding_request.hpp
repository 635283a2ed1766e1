// EmbeddingJob: the body of POST /v1/embeddings, checked and tokenized.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "daemon/api/api_format.hpp"
#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {

inline constexpr std::size_t kEmbeddingInputsMax = 2048;

struct EmbeddingJob {
  std::vector<std::vector<std::int32_t>> inputs;  ///< token ids, each at least one
  bool base64 = false;                            ///< else numbers
};

/// What a request is read with. Borrowed; outlives the service.
struct EmbeddingContext {
  ApiContext api;
  std::int32_t hidden_size = 0;
};

/// Parses, checks and tokenizes; on any thread. Returns the error to answer, with the field's name in `param`; then `job` is unspecified.
/// Cost  O(body) and tokenizing; nesting is bounded.
[[nodiscard]] std::optional<ApiError> read_embedding_request(std::string_view body, const EmbeddingContext& context, EmbeddingJob& job);

}  // namespace lockstep::daemon
