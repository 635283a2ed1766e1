// GenerationJob: what one HTTP request asks of the engine, whatever its format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/scheduler/request.hpp"

namespace lockstep::daemon {

inline constexpr std::size_t kChoicesMax = 128;  ///< texts in one answer: prompts × n
inline constexpr std::size_t kStopStringsMax = 16;
inline constexpr std::size_t kStopStringBytesMax = 1024;
inline constexpr std::size_t kStopTokensMax = 64;

struct GenerationJob {
  std::vector<std::vector<std::int32_t>> prompts;  ///< token ids, each at least one
  std::vector<std::string> echoes;                 ///< by prompt, what stands before each of its texts; empty: nothing does
  bool scores_prompts = false;                     ///< instead of echoes: the prompts' tokens, each with its log probability
  std::string_view prompt_field = "prompt";        ///< of the request, which the prompts came from
  bool may_generate_nothing = false;               ///< max_tokens may be 0
  std::int32_t choices_per_prompt = 1;
  scheduler::SamplingParams sampling;
  bool seed_given = false;                 ///< false: the service chooses a random one
  std::optional<std::int32_t> max_tokens;  ///< absent: `default_max_tokens`, or what the context has left
  std::int32_t default_max_tokens = 16;
  std::int32_t min_tokens = 0;
  bool ignore_eos = false;
  std::vector<std::int32_t> stop_token_ids;
  std::vector<std::string> stop_strings;  ///< UTF-8, none empty
  bool includes_stop_string = false;
  bool stream = false;
  bool include_usage = false;

  [[nodiscard]] std::size_t choice_count() const { return prompts.size() * static_cast<std::size_t>(choices_per_prompt); }
};

}  // namespace lockstep::daemon
