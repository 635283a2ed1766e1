// The status with which an error ends the process.
#pragma once

#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

[[nodiscard]] int exit_code_of(ErrorCode code);

}  // namespace lockstep::daemon
