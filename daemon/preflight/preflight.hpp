// --check and --dry-run: everything that a start would check, and what it would do, without serving.
#pragma once

#include "daemon/options/options.hpp"
#include "lockstep/comm/launch.hpp"

namespace lockstep::daemon {

/// Whether `options` ask for this instead of serving.
[[nodiscard]] inline bool wants_preflight(const DaemonOptions& options) {
  return options.check || options.dry_run;
}

/// Checks as a start does, and that the ranks of this host fit into its memory (of --dry-run only a warning); rank 0 prints to standard output what it found.
/// Under a launcher each rank checks for itself; without one, `assume_ranks` stands for a group of that size on this host.
/// Returns the exit status: kExitOk, or that with which serving would have ended, with the reason in the log.
[[nodiscard]] int run_preflight(DaemonOptions options, const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment);

}  // namespace lockstep::daemon
