#include "daemon/lifecycle/start_facts.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace lockstep::daemon {
bool bound_by_launcher(const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment) {
  if (launch.launcher == "mpirun") {
    return environment("OMPI_MCA_orte_bound_at_launch").has_value();  // Open MPI 4's word to MPI_Init, which must not bind once more
  }
  if (launch.launcher == "srun") {
    const std::string kind = environment("SLURM_CPU_BIND_TYPE").value_or("none");  // "none", or "mask_cpu:" and its like
    return kind != "none" && !kind.empty();
  }
  return false;
}

StartFacts read_start_facts(const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment) {
  StartFacts facts;
  facts.cores_available = comm::available_core_count();
  facts.bound = bound_by_launcher(launch, environment);
  facts.cores_per_rank = facts.bound ? facts.cores_available : std::max(1, facts.cores_available / launch.local_size);
  return facts;
}

std::string shared_core_warning(const StartFacts& facts, const comm::LaunchInfo& launch) {
  if (facts.bound || launch.local_size <= facts.cores_available) {
    return {};
  }
  return fmt::format("{} ranks share {} core{}: every step waits for the scheduler; start fewer ranks on this host", launch.local_size, facts.cores_available,
                     facts.cores_available == 1 ? "" : "s");
}

void log_start_facts(spdlog::logger& logger, const StartFacts& facts, const comm::LaunchInfo& launch, std::string_view model) {
  logger.info("lockstepd {}: model {}, started by {}, local rank {} of {}, {} core{} for this rank ({}), computing with {}", LOCKSTEP_VERSION, model,
              launch.launcher, launch.local_rank, launch.local_size, facts.cores_per_rank, facts.cores_per_rank == 1 ? "" : "s",
              facts.bound ? "bound" : "not bound", facts.instructions);
  if (const std::string warning = shared_core_warning(facts, launch); !warning.empty()) {
    logger.warn("{}", warning);
  }
}

}  // namespace lockstep::daemon
