#include "lockstep/micro_batch/micro_batch_info.hpp"

#include <fmt/format.h>

namespace lockstep {

std::string_view micro_batch_state_name(MicroBatchState state) {
  switch (state) {
    case MicroBatchState::kPending:
      return "pending";
    case MicroBatchState::kRunning:
      return "running";
    case MicroBatchState::kCompleted:
      return "completed";
    case MicroBatchState::kFailed:
      return "failed";
  }
  return "unknown";
}

void MicroBatchInfo::change_state(MicroBatchState next) {
  const bool starts = state == MicroBatchState::kPending && next == MicroBatchState::kRunning;
  const bool completes = state == MicroBatchState::kRunning && next == MicroBatchState::kCompleted;
  const bool fails = state != MicroBatchState::kFailed && next == MicroBatchState::kFailed;
  if (!starts && !completes && !fails) {
    throw std::logic_error(fmt::format("micro-batch {} is {} and cannot become {}", index, micro_batch_state_name(state), micro_batch_state_name(next)));
  }
  state = next;
}

}  // namespace lockstep
