// The MPI backend's line in the table of backends.
#pragma once

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// The ranks of this MPI job; once per process. Errors as MpiRuntime::create.
[[nodiscard]] Result<std::unique_ptr<Communicator>> make_mpi_communicator(const CommOptions& options);

}  // namespace lockstep::comm
