#include "daemon/http/access/host_names.hpp"

#include <algorithm>
#include <cctype>

#include <boost/asio/ip/address.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

constexpr std::size_t kNameBytesMax = 253;  // of DNS

/// "name:8000" and "[::1]:8000" without the port and the brackets; without the dot that ends a name in full.
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) {
    return host.substr(1, host.find(']') - 1);
  }
  host = host.substr(0, host.find(':'));
  if (host.ends_with('.')) {
    host.remove_suffix(1);
  }
  return host;
}

bool is_address(std::string_view host) {
  boost::system::error_code error;
  static_cast<void>(boost::asio::ip::make_address(host, error));
  return !error;
}

}  // namespace

Status check_host_name(std::string_view name) {
  const bool plain = std::ranges::all_of(name, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_'; });
  if (name == "*" || (plain && !name.empty() && name.size() <= kNameBytesMax && !name.ends_with('.'))) {
    return {};
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("--allowed-host {}: expected * or a name such as server.example, in lower case, without a port", name)};
}

bool HostNames::accepts(std::string_view host) const {
  if (any_) {
    return true;
  }
  const std::string_view bare = without_port(host);
  if (bare.find('.') == std::string_view::npos || is_address(bare)) {
    return true;
  }
  std::string name(bare.substr(0, kNameBytesMax + 1));
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name.ends_with(".localhost") || std::ranges::any_of(names_, [&name](const std::string& allowed) { return allowed == "*" || allowed == name; });
}

}  // namespace lockstep::daemon
