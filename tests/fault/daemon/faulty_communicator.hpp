// FaultyCommunicator: stands between the engine of a test daemon and its real communicator, and misbehaves once its gate is armed.
#pragma once

#include <memory>

#include "lockstep/comm/communicator.hpp"
#include "tests/fault/daemon/fault_plan.hpp"

namespace lockstep::tests {

/// What it changes it changes before the real communicator sees it, so that real MPI carries the fault to the others.
[[nodiscard]] std::unique_ptr<comm::Communicator> make_faulty_communicator(std::unique_ptr<comm::Communicator> inner, Fault fault, Gate gate);

}  // namespace lockstep::tests
