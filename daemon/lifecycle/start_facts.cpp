#include "daemon/lifecycle/start_facts.hpp"

#include <algorithm>
#include <sched.h>
#include <unistd.h>

#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

bool bound_to_some_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  return ::sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) < ::sysconf(_SC_NPROCESSORS_ONLN);
}

std::string best_instructions() {
  if (__builtin_cpu_supports("avx512bf16") != 0) {
    return "avx512_bf16";
  }
  if (__builtin_cpu_supports("avx512f") != 0) {
    return "avx512";
  }
  return __builtin_cpu_supports("avx2") != 0 ? "avx2" : "sse";
}

}  // namespace

StartFacts read_start_facts(const comm::LaunchInfo& launch) {
  StartFacts facts;
  facts.cores_available = comm::available_core_count();
  facts.bound = bound_to_some_cores();
  facts.cores_per_rank = facts.bound ? facts.cores_available : std::max(1, facts.cores_available / launch.local_size);
  facts.instructions = best_instructions();
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
  logger.info("lockstepd {}: model {}, started by {}, local rank {} of {}, {} core{} for this rank ({}), CPU with {}", LOCKSTEP_VERSION, model, launch.launcher,
              launch.local_rank, launch.local_size, facts.cores_per_rank, facts.cores_per_rank == 1 ? "" : "s", facts.bound ? "bound" : "not bound",
              facts.instructions);
  if (const std::string warning = shared_core_warning(facts, launch); !warning.empty()) {
    logger.warn("{}", warning);
  }
}

}  // namespace lockstep::daemon
