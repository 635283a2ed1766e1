// make_logger: one logger per rank, to standard error.
#pragma once

#include <memory>
#include <string_view>

#include <spdlog/logger.h>

namespace lockstep::daemon {

/// Lines are "2026-01-02T03:04:05.678Z info [rank 0/2] text". User text is never logged.
/// Ownership  the caller's alone; spdlog only hands out shared pointers.      Threads  any.
[[nodiscard]] std::shared_ptr<spdlog::logger> make_logger(int rank, int world_size, std::string_view level);

}  // namespace lockstep::daemon
