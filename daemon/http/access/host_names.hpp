// HostNames: under which names clients may address the server.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

/// A DNS name in lower case, without a port, or "*" for all.      Errors  kInvalidArgument naming `name`.
[[nodiscard]] Status check_host_name(std::string_view name);

/// Keeps pages in browsers out that make their own name resolve to this machine's loopback address (DNS rebinding): to the browser the server is then of the
/// page's origin, but the Host header still has the page's name. Such a name has a dot in it, for it is somebody's domain; addresses, `localhost` and names of
/// one word are nobody's.
/// Threads  const calls from any.      Source  RFC 6761 (localhost); RFC 9110, 7.2 (Host)
class HostNames {
 public:
  /// All names are accepted.
  HostNames() = default;
  /// `names`, as check_host_name accepts them, besides those that are nobody's domain.
  explicit HostNames(std::vector<std::string> names) : names_(std::move(names)), any_(false) {}
  /// `host` is the header's value, with or without a port.      Cost  linear in the names; no allocation for addresses and localhost.
  [[nodiscard]] bool accepts(std::string_view host) const;

 private:
  std::vector<std::string> names_;
  bool any_ = true;
};

}  // namespace lockstep::daemon
