// How the ranks of a group find each other: the secret, and the exchange of addresses.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/launch.hpp"
#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"

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

}  // namespace lockstep::daemon
