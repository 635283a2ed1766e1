// ServerState: what the connections of a server have in common. Private to daemon/http.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "daemon/http/access/cors.hpp"
#include "daemon/http/encoding/compressor.hpp"
#include "daemon/http/server.hpp"

namespace boost::asio {
class any_io_executor;
}

namespace lockstep::daemon {

class Connection;

/// Ownership  shared by the server and its connections, so that the last handler may run after the server is gone.      Threads  the Asio thread.
struct ServerState : std::enable_shared_from_this<ServerState> {
  ServerState(HttpServerOptions the_options, Router the_router) : options(std::move(the_options)), router(std::move(the_router)), cors(options.cors_origins) {}

  HttpServerOptions options;
  Router router;
  Cors cors;
  std::unique_ptr<Compressor> compressor;         ///< null once the server closes
  std::unordered_set<Connection*> connections{};  ///< each removes itself
  std::vector<std::shared_ptr<Connection>> to_flush{};
  std::size_t large_bodies = 0;
  std::size_t answer_bytes = 0;  ///< of large answers that wait for their clients
  std::size_t exchanges = 0;
  std::uint64_t request_serial = 0;
  std::uint64_t request_salt = 0;  ///< tells request ids of two processes apart

  void count_exchange(int change);
  /// Room for an answer of that size among those that wait; it is given back when the pointer goes. False: there is none.
  [[nodiscard]] bool take_answer_place(std::size_t bytes, std::shared_ptr<void>& place);
  void count_connections() const;
  void count_sent(std::size_t bytes) const;
  void reject(std::string_view reason) const;
  void report(const ResponseFacts& facts) const;
  /// Flushes `connection` when what runs now on the Asio thread has returned: all that it writes goes out in one send.
  void flush_later(std::shared_ptr<Connection> connection, const boost::asio::any_io_executor& executor);
};

}  // namespace lockstep::daemon
