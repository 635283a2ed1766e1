// The table of communicator backends: a new one is a new folder and one line here.
#include <array>
#include <string>

#include <fmt/format.h>

#include "comm/local/local_backend.hpp"
#include "comm/mpi/mpi_backend.hpp"
#include "comm/nccl/nccl_backend.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

std::span<const CommBackend> comm_backends() {
  // An explicit table: self-registering statics are dropped by the linker from static libraries.
  static constexpr std::array kBackends{
      CommBackend{.name = "local", .device_buffers = false, .multi_process = false, .make = make_local_communicator},
      CommBackend{.name = "mpi", .device_buffers = false, .multi_process = true, .make = make_mpi_communicator},
      CommBackend{.name = "nccl",
                  .device_buffers = true,
                  .multi_process = true,
                  .needs_device = true,
                  .make = make_nccl_communicator,
                  .make_over = make_nccl_over_control,
                  .probe = probe_nccl},
  };
  return kBackends;
}

Result<std::unique_ptr<Communicator>> make_communicator(std::string_view name, const CommOptions& options) {
  std::string known;
  for (const CommBackend& backend : comm_backends()) {
    if (backend.name == name) {
      return backend.make(options);
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", backend.name);
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("unknown communicator '{}'; expected one of: {}", name, known)};
}

}  // namespace lockstep::comm
