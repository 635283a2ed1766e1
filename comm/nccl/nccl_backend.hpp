// The NCCL communicator as the table of backends sees it: a plugin, opened when asked for, so that the program needs neither NCCL nor CUDA.
#pragma once

#include <memory>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// Over an MPI communicator of the same ranks, or for one rank alone over a local one.
/// Errors  of make_nccl_over_control; those of the MPI communicator.
[[nodiscard]] Result<std::unique_ptr<Communicator>> make_nccl_communicator(const CommOptions& options);

/// Over any communicator of the same ranks, which carries ids and sizes. Collective.
/// Errors  kUnsupported: no plugin (the folders are named), no NCCL or no device; kInternal, kPeerLost: NCCL's, with call, rank, device and step; kTimeout: not
/// all ranks came within options.start_timeout.
[[nodiscard]] Result<std::unique_ptr<Communicator>> make_nccl_over_control(std::unique_ptr<Communicator> control, const CommOptions& options);

/// Whether this rank has the plugin, its libraries and a device. Not collective.      Errors  kUnsupported: what is missing.
[[nodiscard]] Status probe_nccl(const CommOptions& options);

}  // namespace lockstep::comm
