// HostPort: an address with its port, as users write it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

struct HostPort {
  std::string host;
  std::uint16_t port = 0;
};

/// "127.0.0.1:9090", "[::1]:9090", "localhost:9090".      Errors  kInvalidArgument naming `option` and the text.
[[nodiscard]] Result<HostPort> read_host_port(std::string_view option, std::string_view text);

}  // namespace lockstep::daemon
