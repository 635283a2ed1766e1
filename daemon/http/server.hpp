// HttpServer: accepts connections, keeps their number and their time in bounds, and hands requests to a Router.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/access/host_names.hpp"
#include "daemon/http/exchange.hpp"
#include "daemon/http/router.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

class TlsIdentity;

/// What a client may use up. Everything that a client can make grow has its bound here.
struct HttpLimits {
  std::size_t header_bytes = std::size_t{16} << 10;  ///< of the request line and the header, with the empty line that ends it
  std::size_t body_bytes = std::size_t{4} << 20;
  std::size_t large_body_bytes = std::size_t{64} << 10;  ///< a longer body, or one of unknown length, needs one of `large_bodies`
  std::size_t large_bodies = 32;                         ///< at the same time, over all connections
  std::size_t chunks = std::size_t{64} << 10;            ///< of one chunked body
  std::size_t answer_bytes = std::size_t{256} << 20;     ///< of all whole answers longer than large_body_bytes that wait for their clients
  std::size_t gzip_bytes = 1024;                         ///< shorter answers are never compressed
  std::size_t connections = 1024;
  std::size_t queued_bytes = std::size_t{1} << 20;  ///< of one stream that its client does not read; one more piece may wait
  Duration read_timeout = std::chrono::seconds(30);
  Duration idle_timeout = std::chrono::seconds(75);
  Duration write_timeout = std::chrono::seconds(30);  ///< without one byte taken by the client
  Duration request_timeout = Duration::zero();        ///< from a request's last byte to the end of its answer; zero: no limit
  Duration stream_ping = std::chrono::seconds(15);    ///< an SSE comment after so much silence, so that proxies keep the stream
};

/// One request that is over. The views are valid during the call.
struct ResponseFacts {
  std::string_view route;   ///< as in the router's table, or kNoRoute
  std::string_view method;  ///< the client's text, or "none" where no request could be read
  int status = 0;           ///< 499: the client left first
  Duration duration{};
  std::size_t bytes = 0;  ///< of head and body, as queued; before TLS
  std::string_view remote;
  std::string_view request_id;
};

/// Told about every request; the daemon makes it metrics and the access log.      Threads  the Asio thread.
class HttpObserver {
 public:
  virtual ~HttpObserver() = default;
  virtual void on_response(const ResponseFacts& /*facts*/) {}
  /// Reasons: too_large, malformed, timeout, overload, slow_reader, foreign_host.
  virtual void on_rejected(std::string_view /*reason*/) {}
  virtual void on_connections(std::size_t /*open*/) {}
  virtual void on_inflight(std::size_t /*exchanges*/) {}
  /// One send to one client.
  virtual void on_sent(std::size_t /*bytes*/) {}

 protected:
  HttpObserver() = default;
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;                ///< 0: any free one
  std::uint16_t shared_port = 0;         ///< 0: none; else opened with SO_REUSEPORT, so that several processes may share it
  std::filesystem::path unix_socket{};   ///< "": none; else in the place of host and port
  std::vector<int> inherited_sockets{};  ///< listening; else in the place of all of the above
  HttpLimits limits{};
  std::vector<HttpHeader> headers{};        ///< sent with every response
  std::vector<std::string> cors_origins{};  ///< as check_cors_origin accepts them
  HostNames host_names{};                   ///< that Host headers may have
  std::vector<HttpObserver*> observers{};   ///< borrowed
  const TlsIdentity* tls = nullptr;         ///< borrowed; null: plain. Unix sockets are always plain
};

/// Ownership  borrows the io_context, the observers and the TLS identity; all outlive it. Connections share its state and end with `close`.      Threads  the
/// Asio thread, but `open`, before the io_context runs.
class HttpServer {
 public:
  /// Binds and listens.      Errors  kInvalidArgument naming host and port, or the socket's path.
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> open(boost::asio::io_context& io, HttpServerOptions options, Router router);
  /// Whether `open` could listen there, without doing so: addresses are bound and let go. That somebody listens there already is no reason to refuse, as it
  /// may be the server that these options are of.      Errors  as of `open`.
  [[nodiscard]] static Status check(const HttpServerOptions& options);
  virtual ~HttpServer() = default;
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// Of the first listener; 0: a Unix socket.
  [[nodiscard]] virtual std::uint16_t port() const = 0;
  /// Of the first listener: "127.0.0.1:8000", "unix:/run/lockstep.sock".
  [[nodiscard]] virtual const std::string& name() const = 0;
  /// From the next request on.
  virtual void set_keys(ApiKeys keys) = 0;
  /// For a process that is about to end without closing anything: a Unix socket's file must not stay.      Threads  any, once.
  virtual void remove_socket_file() = 0;
  /// Stops accepting, and closes every connection.
  virtual void close() = 0;
  /// True when no request is being answered and nothing waits to be written.
  [[nodiscard]] virtual bool idle() const = 0;
  [[nodiscard]] virtual std::size_t connection_count() const = 0;

 protected:
  HttpServer() = default;
};

}  // namespace lockstep::daemon
