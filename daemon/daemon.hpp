// run_daemon: the whole of lockstepd.
#pragma once

#include "daemon/hooks.hpp"

namespace lockstep::daemon {

/// Runs one rank until its group has ended; returns the exit status (include/lockstep/core/exit_codes.hpp). After a failure of the group it does not return but
/// leaves by _exit, as what MPI was doing cannot be taken back.
[[nodiscard]] int run_daemon(int argc, char** argv, const DaemonHooks& hooks);

}  // namespace lockstep::daemon
