#include "scheduler/batch/prompt_pace.hpp"

#include <algorithm>

namespace lockstep::scheduler {

namespace {

constexpr double kWeightOfNewest = 1.0 / 8;
/// A step in which a core was lost to others says nothing: it counts as this many times the mean at most.
constexpr double kOutlier = 3;
/// What prompts may add to a step of running streams, as a part of its own time: the time between two tokens stays below twice the usual, with room for what
/// the mean does not show: while prompts come, the thread that reads requests takes its part of the cores.
constexpr double kShareOfStep = 0.35;

void add_sample(double sample, double& mean) {
  mean = mean == 0 ? sample : mean + kWeightOfNewest * (std::min(sample, kOutlier * mean) - mean);
}

}  // namespace

void PromptPace::record(double duration_ms, std::int64_t prompt_tokens, std::int64_t prompt_tokens_total) {
  if (duration_ms <= 0) {
    return;
  }
  if (prompt_tokens_total == 0) {
    add_sample(duration_ms, decode_ms_);
    return;
  }
  // Where other members' prompts may have been what the step waited for, it says nothing of ours.
  const bool is_ours = 2 * prompt_tokens > prompt_tokens_total;
  if (is_ours && decode_ms_ > 0 && duration_ms > decode_ms_) {
    add_sample((duration_ms - decode_ms_) / static_cast<double>(prompt_tokens), token_ms_);
  }
}

std::int32_t PromptPace::tokens() const {
  if (token_ms_ == 0) {
    return kTokensAtFirst;
  }
  constexpr double kMost = 1 << 20;  // beyond any budget
  return static_cast<std::int32_t>(std::clamp(kShareOfStep * decode_ms_ / token_ms_, static_cast<double>(kTokensMin), kMost));
}

}  // namespace lockstep::scheduler
