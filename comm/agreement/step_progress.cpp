#include "lockstep/comm/step_progress.hpp"

namespace lockstep::comm {

std::string_view step_phase_name(StepPhase phase) {
  switch (phase) {
    case StepPhase::kStarting:
      return "starting";
    case StepPhase::kSleeping:
      return "sleeping";
    case StepPhase::kComputing:
      return "computing";
    case StepPhase::kAgreeing:
      return "agreeing";
    case StepPhase::kDispatching:
      return "dispatching";
    case StepPhase::kCombining:
      return "combining";
    case StepPhase::kStopped:
      return "stopped";
  }
  return "unknown";  // the value came in a peer's heartbeat
}

}  // namespace lockstep::comm
