// find_inherited_sockets: listening sockets that a service manager opened for this process.
#pragma once

#include <string>
#include <vector>

#include "lockstep/comm/launch.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

struct InheritedSockets {
  std::vector<int> descriptors;  ///< in the order of the socket unit; the caller's
  std::string warning;           ///< why sockets that were announced are not used; "" is well
};

/// By LISTEN_FDS and LISTEN_PID. Descriptors are not passed on to programs that this process starts.
/// Errors  kInvalidArgument: LISTEN_FDS is no number, or there are several ranks, whose launcher does not pass descriptors on.
/// Source  sd_listen_fds(3), "Notes": the environment's protocol.
[[nodiscard]] Result<InheritedSockets> find_inherited_sockets(const comm::EnvironmentReader& environment, const comm::LaunchInfo& launch, int process_id);

}  // namespace lockstep::daemon
