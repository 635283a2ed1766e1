// GenerationRequest, TokenEvent and OutputSink: what goes into the engine and what comes out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"
#include "lockstep/model/sampler.hpp"

namespace lockstep::scheduler {

using RequestId = std::uint64_t;

inline constexpr std::int32_t kLogProbabilitiesMax = 20;  ///< likeliest tokens that come with a token
inline constexpr std::size_t kLogitBiasesMax = 1024;

/// How tokens are chosen; SamplerInput says what each does and in which order. Ranges are checked by the daemon and once more by Engine::submit.
struct SamplingParams {
  float temperature = 1.0F;                    ///< [0, 2]; 0 is greedy
  std::int32_t top_k = 0;                      ///< tokens; 0 is all
  float top_p = 1.0F;                          ///< (0, 1]
  float min_p = 0.0F;                          ///< [0, 1]
  float repetition_penalty = 1.0F;             ///< (0, 10]; of tokens in prompt and output
  float presence_penalty = 0.0F;               ///< [-2, 2]; of tokens in the output
  float frequency_penalty = 0.0F;              ///< [-2, 2]; of tokens in the output, times their count
  std::vector<model::LogitBias> logit_bias{};  ///< at most kLogitBiasesMax, each in [-100, 100]
  std::uint64_t seed = 0;                      ///< noise depends on (seed, position) alone
  std::int32_t log_probabilities = -1;         ///< -1: none; else the token's own, and of that many likeliest ones
};

/// How a request that wants no text makes one vector of its prompt's last hidden states, after the final norm. The vector has length 1.
/// kMean: the direction of their mean; kLast: that of the last token's.
enum class Pooling : std::uint8_t { kNone, kMean, kLast };

struct GenerationRequest {
  RequestId id = 0;                            ///< chosen by the caller, unique among the open ones
  std::vector<std::int32_t> prompt_token_ids;  ///< at least one
  SamplingParams sampling;
  std::int32_t max_tokens = 16;  ///< generated tokens, at least 1, or 0 where the request pools or scores its prompt; prompt + max_tokens <= context
  std::int32_t min_tokens = 0;   ///< until so many are generated, no token that would end the text is chosen; at most max_tokens
  bool ignore_eos = false;
  std::vector<std::int32_t> stop_token_ids;  ///< beside the model's end tokens
  Pooling pooling = Pooling::kNone;          ///< else nothing is generated, and the event with kStop carries the embedding
  bool scores_prompt = false;                ///< the prompt's tokens, but the first, come before the generated ones, each with its log probabilities
};

enum class FinishReason : std::uint8_t { kStop, kLength, kCancelled, kError, kRankLost };
[[nodiscard]] std::string_view finish_reason_name(FinishReason reason);

/// One token of one request, or its end. A request's events come in order; the one with `finish` is its last.
struct TokenEvent {
  RequestId request = 0;
  std::int32_t token = -1;                                  ///< -1: no token with this event; an end token is delivered too
  bool of_prompt = false;                                   ///< `token` is the prompt's next one, from its second on, and was not generated
  float log_probability = 0.0F;                             ///< of `token` under the unmodified distribution; 0 where the request asked for none
  std::span<const model::TokenLogProbability> likeliest{};  ///< likeliest first, where the request asked for them; valid during the call
  std::optional<FinishReason> finish{};
  std::span<const float> embedding{};  ///< [hidden size], with the kStop of a request that pools; valid during the call
  const Error* error = nullptr;        ///< with kError and kRankLost; valid during the call
};

/// Where the engine's output goes.      Threads  called by the engine thread, once per step; must not block and not call the engine.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  virtual void deliver(std::span<const TokenEvent> events) = 0;

 protected:
  OutputSink() = default;
};

}  // namespace lockstep::scheduler
