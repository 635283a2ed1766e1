// What surrounds the process: variables that libraries read, and the host's memory.
#pragma once

#include <cstdint>

#include <spdlog/logger.h>

#include "lockstep/comm/launch.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

/// oneDNN takes a value of DNNL_MAX_CPU_ISA (or ONEDNN_MAX_CPU_ISA) that it does not know for no limit, without a word: the ranks of a group that were to
/// compute alike would not.
/// Errors  kInvalidArgument: the variable, its value, those that there are, and the nearest.
[[nodiscard]] Status check_instruction_limit(const comm::EnvironmentReader& environment);

/// A warning for each LOCKSTEP_ variable of this process that is no option, with the nearest that is.
void warn_of_unknown_variables(spdlog::logger& logger);

/// Bytes that all processes of this host, or of this container, may use together.
[[nodiscard]] std::int64_t host_memory_bytes();

}  // namespace lockstep::daemon
