// StartFacts: what the first log lines say of the machine.
#pragma once

#include <string>
#include <string_view>

#include <spdlog/logger.h>

#include "lockstep/comm/launch.hpp"

namespace lockstep::daemon {

struct StartFacts {
  int cores_available = 1;   ///< that this process may run on
  int cores_per_rank = 1;    ///< its share of them
  bool bound = false;        ///< the launcher gave this process cores of its own
  std::string instructions;  ///< that matrix products use, as the device names it; filled in by the one who asks it
};

/// Whether the launcher says that it gave this process cores of its own. Its affinity mask does not: a container's cpuset, a unit or taskset narrows the mask
/// of all ranks alike, and they share what is left.
[[nodiscard]] bool bound_by_launcher(const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment);

/// Cores that the launcher bound are all this rank's own. Else the host's ranks share them.
[[nodiscard]] StartFacts read_start_facts(const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment);

/// The warning for ranks that share a core; "" when each has one.
[[nodiscard]] std::string shared_core_warning(const StartFacts& facts, const comm::LaunchInfo& launch);

void log_start_facts(spdlog::logger& logger, const StartFacts& facts, const comm::LaunchInfo& launch, std::string_view model);

}  // namespace lockstep::daemon
