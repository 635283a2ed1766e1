#include "daemon/http/server.hpp"

#include <algorithm>
#include <random>
#include <sys/socket.h>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>

#include "daemon/http/connection/connection.hpp"

namespace lockstep::daemon {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAcceptRetry = std::chrono::milliseconds(100);
constexpr Duration kSweepIntervalMax = std::chrono::milliseconds(250);
// Connections beyond the limit are told so; beyond these too they are closed without a word.
constexpr std::size_t kRefusalsMax = 64;

Status listen_on(tcp::acceptor& acceptor, const tcp::endpoint& endpoint, bool shared) {
  const char* const option = shared ? "--shared-port" : "--port";
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) {
    acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  }
  if (!error && shared) {
    acceptor.set_option(boost::asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>(true), error);
  }
  if (!error) {
    acceptor.bind(endpoint, error);
  }
  if (!error) {
    acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
  }
  if (error) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: cannot listen on {} port {}: {}; choose another port, or another --host", option,
                                                          endpoint.address().to_string(), endpoint.port(), error.message())};
  }
  return {};
}

class AsioHttpServer final : public HttpServer {
 public:
  AsioHttpServer(boost::asio::io_context& io, HttpServerOptions options, Router router)
      : io_(io), state_(std::make_shared<ServerState>(std::move(options), std::move(router))), sweep_timer_(io), retry_timer_(io) {
    std::random_device random;
    state_->request_salt = (std::uint64_t{random()} << 32) | random();
    const HttpLimits& limits = state_->options.limits;
    sweep_interval_ = std::min({kSweepIntervalMax, limits.read_timeout / 4, limits.idle_timeout / 4, limits.write_timeout / 4, limits.stream_ping / 4});
  }
  ~AsioHttpServer() override {
    close();
    state_->options.observer = nullptr;  // connections end later, with their last handlers
  }

  Status open() {
    const std::string& host = state_->options.host;
    error_code error;
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(host, "", tcp::resolver::passive | tcp::resolver::numeric_service, error);
    if (error || found.empty()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("--host {}: {}; expected an address of this machine", host, error.message())};
    }
    const boost::asio::ip::address address = found.begin()->endpoint().address();
    acceptors_.reserve(2);
    acceptors_.emplace_back(io_);
    LOCKSTEP_RETURN_IF_ERROR(listen_on(acceptors_[0], tcp::endpoint(address, state_->options.port), false));
    if (state_->options.shared_port != 0) {
      acceptors_.emplace_back(io_);
      LOCKSTEP_RETURN_IF_ERROR(listen_on(acceptors_[1], tcp::endpoint(address, state_->options.shared_port), true));
    }
    port_ = acceptors_[0].local_endpoint().port();
    for (tcp::acceptor& acceptor : acceptors_) {
      accept(acceptor);
    }
    return {};
  }

  [[nodiscard]] std::uint16_t port() const override { return port_; }
  [[nodiscard]] std::size_t connection_count() const override { return state_->connections.size(); }
  [[nodiscard]] bool idle() const override {
    return state_->exchanges == 0 && std::ranges::none_of(state_->connections, [](const Connection* connection) { return connection->has_output(); });
  }

  void close() override {
    error_code ignored;
    for (tcp::acceptor& acceptor : acceptors_) {
      acceptor.close(ignored);
    }
    sweep_timer_.cancel();
    retry_timer_.cancel();
    for (const std::shared_ptr<Connection>& connection : open_connections()) {
      connection->close();
    }
  }

 private:
  void accept(tcp::acceptor& acceptor) {
    acceptor.async_accept([this, &acceptor](error_code error, tcp::socket socket) {
      if (error == boost::asio::error::operation_aborted) {
        return;  // closed: `this` may be gone
      }
      if (error) {
        // No descriptors or memory left: accepting again at once would spin.
        retry_timer_.expires_after(kAcceptRetry);
        retry_timer_.async_wait([this, &acceptor](error_code cancelled) {
          if (!cancelled) {
            accept(acceptor);
          }
        });
        return;
      }
      welcome(std::move(socket));
      accept(acceptor);
    });
  }

  void welcome(tcp::socket socket) {
    const std::size_t limit = state_->options.limits.connections;
    const std::size_t open = state_->connections.size();
    if (open >= limit + kRefusalsMax) {
      state_->reject("overload");
      return;
    }
    const auto connection = std::make_shared<Connection>(std::move(socket), state_);
    if (open >= limit) {
      connection->refuse();
    } else {
      connection->start();
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
  std::shared_ptr<ServerState> state_;  ///< shared with the connections
  std::vector<tcp::acceptor> acceptors_;
  boost::asio::steady_timer sweep_timer_;
  boost::asio::steady_timer retry_timer_;
  Duration sweep_interval_ = kSweepIntervalMax;
  std::uint16_t port_ = 0;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::open(boost::asio::io_context& io, HttpServerOptions options, Router router) {
  auto server = std::make_unique<AsioHttpServer>(io, std::move(options), std::move(router));
  LOCKSTEP_RETURN_IF_ERROR(server->open());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace lockstep::daemon
