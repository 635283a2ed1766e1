// embedding_body: the answer of POST /v1/embeddings.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::daemon {

/// `base64`: the float32 values in little-endian order, as OpenAI's clients ask for them; else numbers that give back the same float32.
[[nodiscard]] std::string embedding_body(std::string_view model, std::span<const std::vector<float>> embeddings, bool base64, std::int64_t prompt_tokens);

}  // namespace lockstep::daemon
