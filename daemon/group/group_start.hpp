// What a rank settles before it joins its group, and how the ranks find each other: checks, the secret, the exchange of addresses.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "daemon/options/options.hpp"
#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/launch.hpp"
#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/model/model_config.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace lockstep::daemon {

struct GroupSecret {
  std::string value;
  std::string warning;  ///< for the log; empty when there is nothing to warn of
};

/// From the file, else LOCKSTEP_GROUP_SECRET, else derived from the launcher's job id, which other users of the host may learn. Empty at world 1.
/// Errors  kInvalidArgument: the file cannot be read or is empty; there is none of the three.
[[nodiscard]] Result<GroupSecret> find_group_secret(const std::filesystem::path& file, const comm::LaunchInfo& launch,
                                                    const comm::EnvironmentReader& environment);

/// Where all members listen, by member index. One all-reduce of 3 numbers per member: the upper and lower half of the address, and the port.
/// Errors  the communicator's.
[[nodiscard]] Result<std::vector<comm::PeerEndpoint>> exchange_endpoints(comm::Communicator& communicator, const comm::PeerEndpoint& mine,
                                                                         const Deadline& deadline);

/// The engine's part of the daemon's options.
[[nodiscard]] scheduler::EngineOptions engine_options(const DaemonOptions& options);

/// What can be told of the options before any port opens, once model and launch are known. Every rank of a host comes to the same answer, so that none of them
/// waits for one that is gone.
/// Errors  kInvalidArgument naming option, value and what is expected: ports of all ranks, the device, the engine's limits, more KV cache than memory.
[[nodiscard]] Status check_start(const DaemonOptions& options, const comm::LaunchInfo& launch, const model::ModelConfig& config,
                                 std::int64_t host_memory_bytes);

}  // namespace lockstep::daemon
