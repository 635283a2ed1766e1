#include "comm/peer/listen_address.hpp"

#include <arpa/inet.h>
#include <cstring>
#include <ifaddrs.h>
#include <memory>
#include <net/if.h>
#include <netinet/in.h>

#include <fmt/format.h>

namespace lockstep::comm::peer {

namespace {

std::uint32_t first_interface_address() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) {
    return INADDR_LOOPBACK;
  }
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, &freeifaddrs);
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET || (entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0) {
      continue;
    }
    sockaddr_in address{};
    std::memcpy(&address, entry->ifa_addr, sizeof(address));
    return ntohl(address.sin_addr.s_addr);
  }
  return INADDR_LOOPBACK;
}

}  // namespace

Result<ListenAddress> choose_listen_address(const std::string& configured, bool single_host) {
  if (configured.empty()) {
    const std::uint32_t address = single_host ? INADDR_LOOPBACK : first_interface_address();
    return ListenAddress{.bind = address, .advertise = address};
  }
  in_addr parsed{};
  if (inet_pton(AF_INET, configured.c_str(), &parsed) != 1) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("peer address \"{}\": expected an IPv4 address of this host, such as 10.0.0.7, or none", configured)};
  }
  const std::uint32_t address = ntohl(parsed.s_addr);
  if (address == INADDR_ANY) {
    return ListenAddress{.bind = address, .advertise = single_host ? INADDR_LOOPBACK : first_interface_address()};
  }
  return ListenAddress{.bind = address, .advertise = address};
}

}  // namespace lockstep::comm::peer
