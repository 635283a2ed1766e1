// Connection: one client's socket, and the state that it shares with the server. Private to this folder.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "daemon/http/server.hpp"

namespace lockstep::daemon {

class Connection;

/// What all connections of a server have in common.      Ownership  shared by the server and its connections, so that the last handler may run after the
/// server is gone.      Threads  the Asio thread.
struct ServerState {
  ServerState(HttpServerOptions the_options, Router the_router) : options(std::move(the_options)), router(std::move(the_router)) {}

  HttpServerOptions options;
  Router router;
  std::unordered_set<Connection*> connections{};  ///< each removes itself
  std::size_t large_bodies = 0;
  std::size_t exchanges = 0;
  std::uint64_t request_serial = 0;
  std::uint64_t request_salt = 0;  ///< tells request ids of two processes apart

  void count_exchange(int change);
  void count_connections() const;
  void reject(std::string_view reason) const;
};

/// Reads one request at a time, waits for its answer, writes it, and reads on. While an answer is awaited it keeps reading, to notice a client that leaves;
/// bytes of a next request are kept, up to a bound. A client that shuts down only its sending side counts as gone.
/// Ownership  its pending handlers hold it.      Threads  the Asio thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<ServerState> state);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();
  /// Answers 503 without reading anything: too many connections.
  void refuse();
  void close();
  /// Closes what has run out of time; pings a silent stream. Called a few times a second.
  void sweep(TimePoint now);
  [[nodiscard]] bool has_output() const { return write_pending_ || !outgoing_.empty(); }

 private:
  class ExchangeImpl;
  /// kFlushing: the answer is complete, its bytes are not all written.
  enum class Phase { kIdle, kReading, kAnswering, kFlushing, kLingering, kClosed };
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void next_request();
  void read_header();
  void on_header(boost::system::error_code error);
  void read_body();
  void on_body(boost::system::error_code error);
  void on_read_error(boost::system::error_code error);
  [[nodiscard]] bool take_body_place();
  void dispatch();
  void reject(int status, std::string_view code, std::string_view message, std::string_view reason);
  void watch_client();
  void on_watched(boost::system::error_code error, std::size_t bytes);
  void queue(std::string_view bytes);
  void write_some();
  void on_written(boost::system::error_code error, std::size_t bytes);
  void end_exchange();
  void after_flush();
  void linger();
  void abandon();

  boost::asio::ip::tcp::socket socket_;
  std::shared_ptr<ServerState> state_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  std::shared_ptr<ExchangeImpl> exchange_;  ///< shared with its handler, which may answer after this connection is gone
  std::string outgoing_;                    ///< waits behind `writing_`
  std::string writing_;                     ///< what the pending write reads from
  std::size_t written_bytes_ = 0;           ///< of `writing_`
  std::size_t lingered_bytes_ = 0;
  Phase phase_ = Phase::kIdle;
  TimePoint deadline_ = TimePoint::max();
  TimePoint last_write_{};
  bool write_pending_ = false;
  bool watching_ = false;
  bool keep_alive_ = true;
  std::shared_ptr<void> body_place_;  ///< among the large bodies; goes with the body to its exchange
};

}  // namespace lockstep::daemon
