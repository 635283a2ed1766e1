// LaunchInfo: who this process is, told by mpirun, srun or nobody.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"

namespace lockstep::comm {

struct LaunchInfo {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  int local_size = 1;
  std::string launcher = "none";  ///< "mpirun", "srun", "none"
  std::string job_id{};           ///< the launcher's id of this job; empty for none
};

/// Reads a variable of the environment; nullopt when unset.
using EnvironmentReader = std::function<std::optional<std::string>(std::string_view name)>;
[[nodiscard]] EnvironmentReader process_environment();

/// Open MPI's OMPI_COMM_WORLD_*, then Slurm's SLURM_PROCID/NTASKS/LOCALID with a PMI that MPI_Init can use, else one rank alone.
/// Errors  kInvalidArgument naming the variable, its value and what was expected: not a number, rank outside the world.
[[nodiscard]] Result<LaunchInfo> read_launch_info(const EnvironmentReader& environment);

/// CPUs that this process may run on (its affinity mask, limited by the cgroup's quota), at least 1.
[[nodiscard]] int available_core_count();

}  // namespace lockstep::comm
