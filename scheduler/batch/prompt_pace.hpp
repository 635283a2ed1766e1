// PromptPace: how many prompt tokens keep a step well under twice its time.
#pragma once

#include <cstdint>

namespace lockstep::scheduler {

/// Learns from the steps that were taken what a step of running streams costs and what each prompt token adds to it. Where a step's time is that of reading the
/// weights, more prompt tokens fit beside it than where arithmetic is; so this is measured and not an option.
/// It sizes chunks only, which no result depends on.      Threads  the engine's.      Cost  a few operations a step.
class PromptPace {
 public:
  /// Before anything was measured.
  static constexpr std::int32_t kTokensAtFirst = 64;
  /// A KV block: fewer would take more steps than they save time.
  static constexpr std::int32_t kTokensMin = 16;

  /// A step of `duration_ms` in which this member computed `prompt_tokens` of the group's `prompt_tokens_total`.
  void record(double duration_ms, std::int64_t prompt_tokens, std::int64_t prompt_tokens_total);
  /// Prompt tokens that make a step last about 1.35 times as long as without.
  [[nodiscard]] std::int32_t tokens() const;

 private:
  double decode_ms_ = 0;  ///< mean of the last steps without prompt tokens
  double token_ms_ = 0;   ///< mean of what a prompt token added
};

}  // namespace lockstep::scheduler
