#include "daemon/http/server.hpp"

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "daemon/http/connection/connection.hpp"
#include "daemon/http/listen/listener.hpp"
#include "daemon/http/tls/tls_identity.hpp"

namespace lockstep::daemon {
namespace {

using boost::system::error_code;

constexpr auto kAcceptRetry = std::chrono::milliseconds(100);
constexpr Duration kSweepIntervalMin = std::chrono::milliseconds(1);
constexpr Duration kSweepIntervalMax = std::chrono::milliseconds(250);
// Connections beyond the limit are told so; beyond these too they are closed without a word.
constexpr std::size_t kRefusalsMax = 64;

PortAddress shared_address(const HttpServerOptions& options) {
  return {.host = options.host, .port = options.shared_port, .option = "--shared-port", .shared = true};
}

class AsioHttpServer final : public HttpServer {
 public:
  AsioHttpServer(boost::asio::io_context& io, HttpServerOptions options, Router router)
      : io_(io), state_(std::make_shared<ServerState>(std::move(options), std::move(router))), sweep_timer_(io) {
    std::random_device random;
    state_->compressor = std::make_unique<Compressor>(io);
    state_->request_salt = (std::uint64_t{random()} << 32) | random();
    const HttpLimits& limits = state_->options.limits;
    sweep_interval_ = std::min({kSweepIntervalMax, limits.read_timeout / 4, limits.idle_timeout / 4, limits.write_timeout / 4, limits.stream_ping / 4});
    if (limits.request_timeout > Duration::zero()) {
      sweep_interval_ = std::min(sweep_interval_, std::max(kSweepIntervalMin, limits.request_timeout / 4));
    }
  }
  ~AsioHttpServer() override {
    close();
    state_->options.observers.clear();  // connections end later, with their last handlers
  }

  Status open() {
    const HttpServerOptions& options = state_->options;
    for (const int descriptor : options.inherited_sockets) {
      LOCKSTEP_RETURN_IF_ERROR(add(adopt_socket(io_, descriptor)));
    }
    if (doors_.empty() && !options.unix_socket.empty()) {
      LOCKSTEP_RETURN_IF_ERROR(add(listen_on_path(io_, options.unix_socket)));
    }
    if (doors_.empty()) {
      LOCKSTEP_RETURN_IF_ERROR(add(listen_on_port(io_, {.host = options.host, .port = options.port})));
    }
    if (options.inherited_sockets.empty() && options.shared_port != 0) {
      LOCKSTEP_RETURN_IF_ERROR(add(listen_on_port(io_, shared_address(options))));
    }
    for (const std::unique_ptr<Door>& door : doors_) {
      accept(*door);
    }
    return {};
  }

  [[nodiscard]] std::uint16_t port() const override { return doors_.front()->listener.port; }
  [[nodiscard]] const std::string& name() const override { return doors_.front()->listener.name; }
  void set_keys(ApiKeys keys) override { state_->router.set_keys(std::move(keys)); }
  void remove_socket_file() override { doors_.front()->listener.file.remove(); }
  [[nodiscard]] std::size_t connection_count() const override { return state_->connections.size(); }
  [[nodiscard]] bool idle() const override {
    return state_->exchanges == 0 && std::ranges::none_of(state_->connections, [](const Connection* connection) { return connection->has_output(); });
  }

  void close() override {
    state_->compressor.reset();
    error_code ignored;
    for (const std::unique_ptr<Door>& door : doors_) {
      door->listener.acceptor.close(ignored);
      door->listener.file.remove();
      door->retry_timer.cancel();
    }
    sweep_timer_.cancel();
    for (const std::shared_ptr<Connection>& connection : open_connections()) {
      connection->close();
    }
    state_->to_flush.clear();
  }

 private:
  /// A listener with a timer of its own: one that waits to accept again must not end another's wait.
  struct Door {
    Door(boost::asio::io_context& io, Listener the_listener) : listener(std::move(the_listener)), retry_timer(io) {}
    Listener listener;
    boost::asio::steady_timer retry_timer;
  };

  Status add(Result<Listener> listener) {
    if (!listener) {
      return listener.error();
    }
    doors_.push_back(std::make_unique<Door>(io_, std::move(*listener)));
    return {};
  }

  void accept(Door& door) {
    door.listener.acceptor.async_accept([this, &door](error_code error, Wire::Socket socket) {
      if (error == boost::asio::error::operation_aborted) {
        return;  // closed: `this` may be gone
      }
      if (error) {
        // No descriptors or memory left: accepting again at once would spin.
        door.retry_timer.expires_after(kAcceptRetry);
        door.retry_timer.async_wait([this, &door](error_code cancelled) {
          if (!cancelled) {
            accept(door);
          }
        });
        return;
      }
      welcome(std::move(socket));
      accept(door);
    });
  }

  void welcome(Wire::Socket socket) {
    const std::size_t limit = state_->options.limits.connections;
    const std::size_t open = state_->connections.size();
    if (open >= limit + kRefusalsMax) {
      state_->reject("overload");
      return;
    }
    error_code gone;
    Client client{.socket = std::move(socket), .tls = nullptr, .remote = ""};
    const auto remote = client.socket.remote_endpoint(gone);
    client.remote = gone ? "unknown" : endpoint_name(remote);
    if (state_->options.tls != nullptr && client.remote != "unix") {
      client.tls = std::make_unique<TlsSession>(state_->options.tls->context());
    }
    const bool secured = client.tls != nullptr;
    const auto connection = std::make_shared<Connection>(std::move(client), state_);
    if (open < limit) {
      connection->start();
    } else if (secured) {
      state_->reject("overload");  // a word in plain text would make no sense to this client, and shaking hands is what there is no room for
      connection->close();
    } else {
      connection->refuse();
    }
    if (open == 0) {
      schedule_sweep();
    }
  }

  void schedule_sweep() {
    sweep_timer_.expires_after(sweep_interval_);
    sweep_timer_.async_wait([this](error_code cancelled) {
      if (cancelled) {
        return;
      }
      const TimePoint now = std::chrono::steady_clock::now();
      for (const std::shared_ptr<Connection>& connection : open_connections()) {
        connection->sweep(now);
      }
      if (!state_->connections.empty()) {
        schedule_sweep();  // with nobody connected, nothing wakes this thread
      }
    });
  }

  /// A copy that holds them: a connection that is closed removes itself from the set.
  [[nodiscard]] std::vector<std::shared_ptr<Connection>> open_connections() const {
    std::vector<std::shared_ptr<Connection>> result;
    result.reserve(state_->connections.size());
    for (Connection* connection : state_->connections) {
      if (auto held = connection->weak_from_this().lock()) {
        result.push_back(std::move(held));
      }
    }
    return result;
  }

  boost::asio::io_context& io_;
  std::shared_ptr<ServerState> state_;        ///< shared with the connections
  std::vector<std::unique_ptr<Door>> doors_;  ///< pending accepts refer to them, so they stay where they are
  boost::asio::steady_timer sweep_timer_;
  Duration sweep_interval_ = kSweepIntervalMax;
};

}  // namespace

Status HttpServer::check(const HttpServerOptions& options) {
  if (!options.inherited_sockets.empty()) {
    return {};
  }
  boost::asio::io_context io;
  LOCKSTEP_RETURN_IF_ERROR(options.unix_socket.empty() ? check_port(io, {.host = options.host, .port = options.port}) : check_path(options.unix_socket));
  return options.shared_port == 0 ? Status() : check_port(io, shared_address(options));
}

Result<std::unique_ptr<HttpServer>> HttpServer::open(boost::asio::io_context& io, HttpServerOptions options, Router router) {
  auto server = std::make_unique<AsioHttpServer>(io, std::move(options), std::move(router));
  LOCKSTEP_RETURN_IF_ERROR(server->open());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace lockstep::daemon
