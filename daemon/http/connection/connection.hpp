// Connection: one client, from the first byte to the last. Private to this folder.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "daemon/http/connection/request_reader.hpp"
#include "daemon/http/connection/server_state.hpp"
#include "daemon/http/connection/wire.hpp"

namespace lockstep::daemon {

/// Who is at the other end, and how it came in.
struct Client {
  Wire::Socket socket;
  std::unique_ptr<TlsSession> tls;  ///< null: plain
  std::string remote;               ///< "127.0.0.1:50000", "unix"
};

/// Reads one request at a time, waits for its answer, writes it, and reads on. While an answer is awaited it keeps reading, to notice a client that leaves;
/// bytes of a next request are kept, up to a bound. A client that shuts down its sending side gets the answers to what it has sent.
/// Ownership  its pending operations hold it.      Threads  the Asio thread.
class Connection final : public WireOwner, public std::enable_shared_from_this<Connection> {
 public:
  Connection(Client client, std::shared_ptr<ServerState> state);
  ~Connection() override;

  void start();
  /// Answers 503 without reading anything: too many connections.
  void refuse();
  void close();
  /// Sends what was queued in this turn of the event loop.
  void flush();
  /// Closes what has run out of time; pings a silent stream. Called a few times a second.
  void sweep(TimePoint now);
  [[nodiscard]] bool has_output() const { return wire_.has_output(); }

 private:
  class ExchangeImpl;
  /// kFlushing: the answer is complete, its bytes are not all written.
  enum class Phase { kIdle, kReading, kAnswering, kFlushing, kLingering, kClosed };

  void on_input(bool ended) override;
  void on_sent(std::size_t bytes) override { state_->count_sent(bytes); }
  void on_flushed() override;
  void on_broken() override { close(); }

  void next_request();
  void begin_request(bool ended);
  void continue_request(bool ended);
  /// False: the request has been answered, or is to be read no further.
  [[nodiscard]] bool accept_head();
  [[nodiscard]] bool take_body_place();
  /// The client's own, or a new one.
  [[nodiscard]] std::string take_request_id();
  void begin_exchange(HttpRequest request);
  void dispatch();
  void reject(const RequestRefusal& refusal);
  void queue(std::string_view bytes);
  void after_input();
  void end_exchange();
  void after_flush();
  void linger();
  void abandon();
  void time_out_exchange();

  Wire wire_;
  std::string remote_;
  std::shared_ptr<ServerState> state_;
  RequestReader reader_;
  RouteMatch match_;                        ///< of the request that is being read
  std::shared_ptr<ExchangeImpl> exchange_;  ///< shared with its handler, which may answer after this connection is gone
  std::size_t lingered_bytes_ = 0;
  TimePoint linger_until_{};
  Phase phase_ = Phase::kIdle;
  TimePoint idle_since_{};
  TimePoint deadline_ = TimePoint::max();
  bool keep_alive_ = true;
  bool flush_wanted_ = false;
  bool input_ended_ = false;
  std::shared_ptr<void> body_place_;    ///< among the large bodies; goes with the body to its exchange
  std::shared_ptr<void> answer_place_;  ///< among the large answers, until this one has been sent
};

}  // namespace lockstep::daemon
