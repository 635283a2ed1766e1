// <mpi.h>, and how its errors become ours. Nothing outside comm/mpi may include this.
#pragma once

// Open MPI's C++ bindings left the standard, and do not pass our warnings.
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#include <optional>
#include <string>
#include <string_view>

#include <mpi.h>

#include "lockstep/core/result.hpp"

namespace lockstep::comm {

/// The library's text for an error code.
[[nodiscard]] std::string mpi_error_text(int code);

/// What an MPI error means to the caller: kDiverged for a message that did not fit, kInternal for arguments that MPI refuses (our own bug), kPeerLost for all
/// else, since what is left is communication.
[[nodiscard]] Error mpi_error(int code, int rank, std::string_view operation, std::optional<int> peer = std::nullopt);

}  // namespace lockstep::comm
