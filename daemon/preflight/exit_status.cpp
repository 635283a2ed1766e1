#include "daemon/preflight/exit_status.hpp"

#include "lockstep/core/exit_codes.hpp"

namespace lockstep::daemon {

int exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kTimeout:
    case ErrorCode::kPeerLost:
    case ErrorCode::kDiverged:
      return kExitPeerLost;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return kExitBadInput;
    case ErrorCode::kCancelled:
      return kExitOk;
    case ErrorCode::kResourceExhausted:
    case ErrorCode::kInternal:
      break;
  }
  return kExitInternal;
}

}  // namespace lockstep::daemon
