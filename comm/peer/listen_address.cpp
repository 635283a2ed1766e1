#include "comm/peer/listen_address.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ifaddrs.h>
#include <memory>
#include <net/if.h>
#include <netinet/in.h>
#include <optional>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

#include "lockstep/comm/peer_channel.hpp"

namespace lockstep::comm::peer {

namespace {

struct Network {
  std::uint32_t address = 0;  ///< host byte order
  std::uint32_t mask = 0;     ///< 0: every network

  [[nodiscard]] bool holds(std::uint32_t other) const { return (other & mask) == (address & mask); }
};

/// The first of the interfaces in the order of the kernel, loopback only where a network is asked for.
std::optional<std::uint32_t> first_interface_address(const Network& network = {}) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) {
    return std::nullopt;
  }
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, &freeifaddrs);
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET || (entry->ifa_flags & IFF_UP) == 0 ||
        ((entry->ifa_flags & IFF_LOOPBACK) != 0 && network.mask == 0)) {
      continue;
    }
    sockaddr_in address{};
    std::memcpy(&address, entry->ifa_addr, sizeof(address));
    if (const std::uint32_t found = ntohl(address.sin_addr.s_addr); network.holds(found)) {
      return found;
    }
  }
  return std::nullopt;
}

std::optional<std::uint32_t> parse_address(const std::string& text) {
  in_addr parsed{};
  return inet_pton(AF_INET, text.c_str(), &parsed) == 1 ? std::optional(ntohl(parsed.s_addr)) : std::nullopt;
}

/// "10.0.0.0/24", of 1 to 32 bits.
std::optional<Network> parse_network(const std::string& text) {
  constexpr int kBitsMax = 32;
  const std::size_t slash = text.find('/');
  const std::optional<std::uint32_t> address = parse_address(text.substr(0, slash));
  int bits = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed_to, error] = std::from_chars(text.data() + std::min(slash + 1, text.size()), end, bits);
  if (slash == std::string::npos || !address || error != std::errc{} || parsed_to != end || bits < 1 || bits > kBitsMax) {
    return std::nullopt;
  }
  return Network{.address = *address, .mask = ~std::uint32_t{0} << static_cast<unsigned>(kBitsMax - bits)};
}

}  // namespace

Result<ListenAddress> choose_listen_address(const std::string& configured, bool single_host) {
  if (configured.empty()) {
    const std::uint32_t address = single_host ? INADDR_LOOPBACK : first_interface_address().value_or(INADDR_LOOPBACK);
    return ListenAddress{.bind = address, .advertise = address};
  }
  if (const std::optional<Network> network = parse_network(configured)) {
    const std::optional<std::uint32_t> address = first_interface_address(*network);
    if (!address) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("peer address \"{}\": no interface of this host that is up has an address in that network; `ip -4 addr` lists them", configured)};
    }
    return ListenAddress{.bind = *address, .advertise = *address};
  }
  const std::optional<std::uint32_t> address = parse_address(configured);
  if (!address) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("peer address \"{}\": expected an IPv4 address of this host, such as 10.0.0.7, a network, such as 10.0.0.0/24, or none", configured)};
  }
  if (*address == INADDR_ANY) {
    return ListenAddress{.bind = *address, .advertise = single_host ? INADDR_LOOPBACK : first_interface_address().value_or(INADDR_LOOPBACK)};
  }
  return ListenAddress{.bind = *address, .advertise = *address};
}

}  // namespace lockstep::comm::peer

namespace lockstep::comm {

Status check_peer_address(const std::string& bind_address, bool single_host) {
  LOCKSTEP_ASSIGN_OR_RETURN(const peer::ListenAddress chosen, peer::choose_listen_address(bind_address, single_host));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(chosen.bind);
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool bound = descriptor >= 0 && ::bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;  // the sockets API's own cast
  const int cause = errno;
  if (descriptor >= 0) {
    ::close(descriptor);
  }
  if (!bound) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("peer address \"{}\": cannot listen there ({}); expected an IPv4 address of this host", bind_address,
                                                          std::generic_category().message(cause))};
  }
  return {};
}

}  // namespace lockstep::comm
