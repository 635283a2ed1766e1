#include "daemon/front_door/front_door.hpp"

#include <algorithm>
#include <unistd.h>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <fmt/format.h>

#include "daemon/front_door/host_port.hpp"
#include "daemon/http/access/cors.hpp"
#include "daemon/http/listen/socket_activation.hpp"

namespace lockstep::daemon {
namespace {

constexpr std::string_view kMetricsPath = "/metrics";

bool is_loopback(const std::string& host) {
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(host, error);
  return error ? host == "localhost" : address.is_loopback();
}

/// The keys of the option and of the file together.
Result<ApiKeys> read_keys(const DaemonOptions& options, spdlog::logger& logger) {
  std::vector<std::string> keys = options.api_keys;
  if (!options.api_key_file.empty()) {
    LOCKSTEP_ASSIGN_OR_RETURN(KeyFile file, read_key_file(options.api_key_file));
    if (!file.warning.empty()) {
      logger.warn("{}", file.warning);
    }
    keys.insert(keys.end(), file.keys.begin(), file.keys.end());
  }
  return ApiKeys::create(keys);
}

Status check_metrics_address(const DaemonOptions& options, const comm::LaunchInfo& launch) {
  if (options.metrics_address.empty()) {
    return {};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const HostPort address, read_host_port("--metrics-address", options.metrics_address));
  if (address.port != 0 && address.port + launch.local_size - 1 > 65535) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--metrics-address: port {} leaves no room for the {} ranks of this host, which count up from it",
                                                          address.port, launch.local_size)};
  }
  const int distance = address.port - options.port;
  if (address.port != 0 && options.port != 0 && std::abs(distance) < launch.local_size) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--metrics-address: port {} is too near to --port {}: the {} ranks of this host count up from both",
                                                          address.port, options.port, launch.local_size)};
  }
  return {};
}

/// Each rank of a host has its own path: the first the one that was named, the others with their number behind it.
std::filesystem::path socket_path(const DaemonOptions& options, int local_rank) {
  if (options.unix_socket.empty() || local_rank == 0) {
    return options.unix_socket;
  }
  return fmt::format("{}.{}", options.unix_socket.string(), local_rank);
}

std::uint16_t rank_port(std::uint16_t first, int local_rank) {
  return first == 0 ? first : static_cast<std::uint16_t>(first + local_rank);
}

/// Where a rank of this host listens for clients, and no more of its options.
HttpServerOptions client_address(const DaemonOptions& options, int local_rank) {
  return {
      .host = options.host, .port = rank_port(options.port, local_rank), .shared_port = options.shared_port, .unix_socket = socket_path(options, local_rank)};
}

/// The same for --metrics-address, which is set.
Result<HttpServerOptions> metrics_address(const DaemonOptions& options, int local_rank) {
  LOCKSTEP_ASSIGN_OR_RETURN(const HostPort address, read_host_port("--metrics-address", options.metrics_address));
  return HttpServerOptions{.host = address.host, .port = rank_port(address.port, local_rank)};
}

/// Only where nothing else keeps pages in browsers out: they cannot reach other addresses as if these were their own, have no key, and no certificate.
HostNames host_names(const DaemonOptions& options, const std::string& address, bool asks_for_more) {
  return !asks_for_more && is_loopback(address) ? HostNames(options.allowed_hosts) : HostNames();
}

Error metrics_error(const DaemonOptions& options, const Error& error) {
  return {error.code, fmt::format("--metrics-address {}: {}", options.metrics_address, error.message)};
}

}  // namespace

Result<FrontDoorParts> read_front_door_parts(const DaemonOptions& options, const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment,
                                             spdlog::logger& logger) {
  FrontDoorParts parts;
  LOCKSTEP_ASSIGN_OR_RETURN(parts.keys, read_keys(options, logger));
  for (const std::string& origin : options.cors_origins) {
    LOCKSTEP_RETURN_IF_ERROR(check_cors_origin(origin));
  }
  for (const std::string& name : options.allowed_hosts) {
    LOCKSTEP_RETURN_IF_ERROR(check_host_name(name));
  }
  LOCKSTEP_RETURN_IF_ERROR(check_metrics_address(options, launch));
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} is set and {} is not: TLS needs both", options.tls_key.empty() ? "--tls-cert" : "--tls-key",
                                                          options.tls_key.empty() ? "--tls-key" : "--tls-cert")};
  }
  if (!options.tls_certificate.empty()) {
    LOCKSTEP_ASSIGN_OR_RETURN(parts.tls, TlsIdentity::load(options.tls_certificate, options.tls_key));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(InheritedSockets inherited, find_inherited_sockets(environment, launch, ::getpid()));
  if (!inherited.warning.empty()) {
    logger.warn("{}", inherited.warning);
  }
  parts.inherited_sockets = std::move(inherited.descriptors);
  if (launch.rank == 0 && parts.keys.empty() && options.unix_socket.empty() && parts.inherited_sockets.empty() && !is_loopback(options.host)) {
    logger.warn("whoever reaches {} may use this server: set --api-key-file, or listen on loopback behind something that asks who comes", options.host);
  }
  if (launch.rank == 0 && !parts.keys.empty() && !parts.tls && options.unix_socket.empty() && parts.inherited_sockets.empty() && !is_loopback(options.host)) {
    logger.warn("API keys travel to {} in plain text: set --tls-cert and --tls-key", options.host);
  }
  return parts;
}

Status check_front_door(const DaemonOptions& options, const comm::LaunchInfo& launch, const FrontDoorParts& parts) {
  for (int local_rank = 0; local_rank < launch.local_size; ++local_rank) {
    HttpServerOptions clients = client_address(options, local_rank);
    clients.inherited_sockets = parts.inherited_sockets;
    LOCKSTEP_RETURN_IF_ERROR(HttpServer::check(clients));
    if (!options.metrics_address.empty()) {
      LOCKSTEP_ASSIGN_OR_RETURN(const HttpServerOptions metrics, metrics_address(options, local_rank));
      if (const Status usable = HttpServer::check(metrics); !usable) {
        return metrics_error(options, usable.error());
      }
    }
  }
  return {};
}

FrontDoor::FrontDoor(boost::asio::io_context& io, const DaemonOptions& options, const comm::LaunchInfo& launch, FrontDoorParts parts, spdlog::logger& logger)
    : io_(io), options_(options), launch_(launch), parts_(std::move(parts)), logger_(logger), access_log_(logger, options.access_log) {}

Status FrontDoor::open(std::vector<Route> routes, HttpObserver& metrics) {
  if (!options_.metrics_address.empty()) {
    LOCKSTEP_RETURN_IF_ERROR(open_metrics(routes, metrics));
    std::erase_if(routes, [](const Route& route) { return route.path == kMetricsPath; });
  }
  HttpLimits limits;
  limits.request_timeout = options_.request_timeout;
  HttpServerOptions options = client_address(options_, launch_.local_rank);
  options.inherited_sockets = parts_.inherited_sockets;
  options.limits = limits;
  options.headers = {{"x-lockstep-rank", std::to_string(launch_.rank)}};
  options.cors_origins = options_.cors_origins;
  options.observers = {&metrics, &access_log_};
  options.tls = parts_.tls.get();
  const bool asks_for_more = !parts_.keys.empty() || parts_.tls || !options.unix_socket.empty() || !options.inherited_sockets.empty();
  options.host_names = host_names(options_, options.host, asks_for_more);
  LOCKSTEP_ASSIGN_OR_RETURN(server_, HttpServer::open(io_, std::move(options), Router(std::move(routes), parts_.keys)));
  logger_.info("listening on {}{}", server_->name(), metrics_server_ ? fmt::format(", metrics on {}", metrics_server_->name()) : "");
  return {};
}

/// Plain and without keys, for scrapers and probes inside a cluster: there is nothing to be had but what the open routes tell.
Status FrontDoor::open_metrics(const std::vector<Route>& routes, HttpObserver& metrics) {
  LOCKSTEP_ASSIGN_OR_RETURN(HttpServerOptions options, metrics_address(options_, launch_.local_rank));
  options.host_names = host_names(options_, options.host, false);
  std::vector<Route> open_routes;
  std::ranges::copy_if(routes, std::back_inserter(open_routes), [](const Route& route) { return route.access == Access::kOpen; });
  options.headers = {{"x-lockstep-rank", std::to_string(launch_.rank)}};
  options.observers = {&metrics, &access_log_};
  Result<std::unique_ptr<HttpServer>> server = HttpServer::open(io_, std::move(options), Router(std::move(open_routes)));
  if (!server) {
    return metrics_error(options_, server.error());
  }
  metrics_server_ = std::move(*server);
  return {};
}

void FrontDoor::reload() {
  if (parts_.tls) {
    if (const Status reloaded = parts_.tls->reload(); reloaded) {
      logger_.info("certificate and key were read again; new connections use them");
    } else {
      logger_.error("the certificate stays as it was: {}", reloaded.error().message);
    }
  }
  if (!options_.api_key_file.empty()) {
    if (Result<ApiKeys> keys = read_keys(options_, logger_)) {
      server_->set_keys(std::move(*keys));
      logger_.info("API keys were read again");
    } else {
      logger_.error("API keys stay as they were: {}", keys.error().message);
    }
  }
  if (!parts_.tls && options_.api_key_file.empty()) {
    logger_.info("asked to read certificate and keys again, but neither --tls-cert nor --api-key-file is set");
  }
}

void FrontDoor::close() {
  server_->close();
  if (metrics_server_) {
    metrics_server_->close();
  }
}

void FrontDoor::remove_socket_file() {
  if (server_) {
    server_->remove_socket_file();
  }
}

std::string FrontDoor::url() const {
  const std::string& name = server_->name();
  return name.starts_with("unix") ? name : fmt::format("{}://{}", parts_.tls ? "https" : "http", name);
}

}  // namespace lockstep::daemon
