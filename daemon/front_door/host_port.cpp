#include "daemon/front_door/host_port.hpp"

#include <fmt/format.h>

#include "daemon/options/values/values.hpp"

namespace lockstep::daemon {

Result<HostPort> read_host_port(std::string_view option, std::string_view text) {
  const auto colon = text.rfind(':');
  const auto port = colon == std::string_view::npos ? std::nullopt : read_integer(text.substr(colon + 1), 0, 65535);
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  if (!port || host.empty() || (!bracketed && host.find(':') != std::string_view::npos)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: \"{}\" is not an address and a port, such as 127.0.0.1:9090 or [::1]:9090", option, text)};
  }
  return HostPort{.host = std::string(host), .port = static_cast<std::uint16_t>(*port)};
}

}  // namespace lockstep::daemon
