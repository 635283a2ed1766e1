// The local backend's line in the table of backends.
#pragma once

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// One rank alone.      Errors  kInvalidArgument: the launch has more processes than one.
[[nodiscard]] Result<std::unique_ptr<Communicator>> make_local_communicator(const CommOptions& options);

}  // namespace lockstep::comm
