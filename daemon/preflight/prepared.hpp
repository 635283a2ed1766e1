// Prepared: what every start settles before a port opens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <spdlog/logger.h>

#include "daemon/front_door/front_door.hpp"
#include "daemon/lifecycle/start_facts.hpp"
#include "daemon/options/options.hpp"
#include "daemon/served_model/served_model.hpp"
#include "lockstep/comm/launch.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

/// From so many weights on, a matrix is taken for large.
inline constexpr std::int64_t kLargeMatrixWeights = std::int64_t{512} * 256;

/// The launcher's name in LaunchInfo of a group that is only thought of (--assume-ranks).
inline constexpr std::string_view kAssumedLauncher = "nobody yet (--assume-ranks)";

struct Prepared {
  DaemonOptions options;
  comm::LaunchInfo launch;
  std::string secret;
  ServedModel model;
  FrontDoorParts front_door;
  StartFacts facts;
  double bytes_per_weight = 0;         ///< of a packed matrix on this device
  double bytes_per_large_weight = 0;   ///< of one of kLargeMatrixWeights and more, with values as trained ones are: devices may hold those in fewer bits
  std::int64_t host_memory_bytes = 0;  ///< for all ranks of the host
  /// Free on this rank's device; 0 where its memory is the host's.
  std::int64_t device_memory_bytes = 0;
};

/// Checks options, environment, model (config, headers, tokenizer), ports and memory of this rank; warnings go to `logger`.
/// Errors  kInvalidArgument, kUnsupported: what is wrong, what is expected.      Cost  reads headers and the tokenizer; some 10 ms.
[[nodiscard]] Result<Prepared> prepare(DaemonOptions options, const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment,
                                       spdlog::logger& logger);

}  // namespace lockstep::daemon
