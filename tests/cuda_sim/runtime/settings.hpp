// What the simulated runtime is told by its environment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_sim {

/// When work that a program has enqueued runs, within what the order of streams and events allows.
enum class SchedulePolicy {
  kEarly,   ///< before the enqueueing call returns
  kLate,    ///< not before the host waits or asks for it, or for what needs it
  kRandom,  ///< any of these, or some calls later, or at the same time as the host goes on: drawn for each piece of work
};

struct Settings {
  SchedulePolicy policy = SchedulePolicy::kRandom;  ///< LOCKSTEP_SIM_SCHEDULE: early, late or random
  std::uint64_t seed = 1;                           ///< LOCKSTEP_SIM_SEED
  int device_count = 1;                             ///< LOCKSTEP_SIM_DEVICES; limited by CUDA_VISIBLE_DEVICES
  std::size_t memory_bytes = std::size_t{4} << 30;  ///< LOCKSTEP_SIM_MEMORY: of each device
  std::string machine = "sim";                      ///< LOCKSTEP_SIM_MACHINE: devices of two machines are not the same
  bool has_driver = true;                           ///< LOCKSTEP_SIM_DEVICES=no-driver
};

/// Read once. A value that is none of these is a violation.
[[nodiscard]] const Settings& settings();

}  // namespace cuda_sim
