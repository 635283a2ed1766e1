// FrontDoor: the servers that a rank opens, as its options say, and what is read again while it serves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <spdlog/logger.h>

#include "daemon/front_door/access_log.hpp"
#include "daemon/http/access/api_keys.hpp"
#include "daemon/http/server.hpp"
#include "daemon/http/tls/tls_identity.hpp"
#include "daemon/options/options.hpp"
#include "lockstep/comm/launch.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

/// What files and the environment say, read and checked before any port opens.
struct FrontDoorParts {
  ApiKeys keys;
  std::unique_ptr<TlsIdentity> tls;    ///< null: plain HTTP
  std::vector<int> inherited_sockets;  ///< from the service manager
};

/// Warnings (a key file that others may read, a network that anyone may use) go to `logger`.
/// Errors  kInvalidArgument naming the option: keys, certificate, addresses, or options that do not go together.
[[nodiscard]] Result<FrontDoorParts> read_front_door_parts(const DaemonOptions& options, const comm::LaunchInfo& launch,
                                                           const comm::EnvironmentReader& environment, spdlog::logger& logger);

/// Whether this host's ranks could listen where the options say, without doing so.      Errors  kInvalidArgument naming the option: no address of this machine,
/// a port that this user may not open, a path where no socket can be made. What somebody listens on already is no error.
[[nodiscard]] Status check_front_door(const DaemonOptions& options, const comm::LaunchInfo& launch, const FrontDoorParts& parts);

/// Ownership  owns the servers; borrows the io_context, the logger and the observer.      Threads  the Asio thread, but `open`, before the io_context runs.
class FrontDoor {
 public:
  FrontDoor(boost::asio::io_context& io, const DaemonOptions& options, const comm::LaunchInfo& launch, FrontDoorParts parts, spdlog::logger& logger);

  /// `routes` are served to clients; with --metrics-address its open ones are served there too, and /metrics only there.
  [[nodiscard]] Status open(std::vector<Route> routes, HttpObserver& metrics);
  /// Keys and certificate from their files; what cannot be used is logged, and the old stays.
  void reload();
  void close();
  /// For a process that is about to end without closing anything.      Threads  any, once.
  void remove_socket_file();
  [[nodiscard]] bool needs_key() const { return !parts_.keys.empty(); }
  [[nodiscard]] bool idle() const { return server_->idle(); }
  /// "http://127.0.0.1:8000", "unix:/run/lockstep.sock".
  [[nodiscard]] std::string url() const;

 private:
  [[nodiscard]] Status open_metrics(const std::vector<Route>& routes, HttpObserver& metrics);

  boost::asio::io_context& io_;
  const DaemonOptions& options_;
  comm::LaunchInfo launch_;
  FrontDoorParts parts_;
  spdlog::logger& logger_;
  AccessLog access_log_;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<HttpServer> metrics_server_;  ///< null without --metrics-address
};

}  // namespace lockstep::daemon
