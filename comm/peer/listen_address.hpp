// The address at which a member listens for its peers.
#pragma once

#include <cstdint>
#include <string>

#include "lockstep/core/result.hpp"

namespace lockstep::comm::peer {

struct ListenAddress {
  std::uint32_t bind = 0;       ///< host byte order; 0 is every interface
  std::uint32_t advertise = 0;  ///< what peers connect to
};

/// `configured` is an IPv4 address, a network such as "10.0.0.0/24" (this host's first address in it: one value for all hosts), or "": loopback when the group
/// shares one host, else the first interface that is up, not loopback and has an IPv4 address (loopback when there is none).      Errors  kInvalidArgument:
/// neither an IPv4 address nor a network, or no address of this host is in it.
[[nodiscard]] Result<ListenAddress> choose_listen_address(const std::string& configured, bool single_host);

}  // namespace lockstep::comm::peer
