// DaemonHooks: where fault tests reach into a daemon. lockstepd itself passes none.
#pragma once

#include <functional>
#include <memory>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/launch.hpp"

namespace lockstep::daemon {

/// All are called on the step thread and may block it, which is what they are for; an empty one does nothing.
struct DaemonHooks {
  std::function<void(const comm::LaunchInfo&)> before_communicator;
  std::function<std::unique_ptr<comm::Communicator>(std::unique_ptr<comm::Communicator>)> wrap_communicator;
  std::function<void(const comm::LaunchInfo&)> before_load;
};

}  // namespace lockstep::daemon
