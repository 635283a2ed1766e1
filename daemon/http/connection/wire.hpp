// Wire: a client's bytes in and out, over TCP or a Unix socket, plain or under TLS. Private to this folder.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <boost/asio/generic/stream_protocol.hpp>

#include "daemon/http/tls/tls_session.hpp"
#include "lockstep/core/deadline.hpp"

namespace lockstep::daemon {

/// What a Wire tells its owner.
class WireOwner {
 public:
  virtual ~WireOwner() = default;
  WireOwner(const WireOwner&) = delete;
  WireOwner& operator=(const WireOwner&) = delete;
  /// More input, or `ended`: none will come any more. Whether the client still reads is then not known.
  virtual void on_input(bool ended) = 0;
  /// Bytes went out in one call.
  virtual void on_sent(std::size_t bytes) = 0;
  /// Everything queued has been sent.
  virtual void on_flushed() = 0;
  /// The connection is gone in both directions.
  virtual void on_broken() = 0;

 protected:
  WireOwner() = default;
};

/// Ownership  owns the socket. Its pending operations hold the owner, which is to be passed in.      Threads  the Asio thread.
class Wire {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  /// `tls` may be null: plain.
  Wire(Socket socket, std::unique_ptr<TlsSession> tls);

  /// Reads once there is something, and tells the owner; does nothing while it waits already, or while kInputBytesMax lie unread.
  void read(const std::shared_ptr<WireOwner>& owner);
  [[nodiscard]] std::string_view input() const { return std::string_view(input_).substr(input_begin_); }
  void consume(std::size_t bytes);
  /// Once input has ended: tells the owner when the client turns out to be gone. TCP says so only after something has been sent to it.
  void watch(const std::shared_ptr<WireOwner>& owner);
  /// A client that ends its sending side may still wait for an answer. Under TLS it leaves: before TLS 1.3 what is sent after its farewell would be an error.
  [[nodiscard]] bool may_outlive_input() const { return !tls_; }

  /// Sent by the next flush.
  void queue(std::string_view bytes) { outgoing_.append(bytes); }
  /// Sends what is queued, in as few calls as the socket takes; no-op while a send is pending, which goes on by itself.
  void flush(const std::shared_ptr<WireOwner>& owner);
  [[nodiscard]] std::size_t queued_bytes() const { return outgoing_.size(); }
  [[nodiscard]] bool has_output() const { return write_pending_ || !outgoing_.empty(); }
  [[nodiscard]] bool write_pending() const { return write_pending_; }
  /// Since when the pending send, or since the last one, no byte was taken.
  [[nodiscard]] TimePoint last_write() const { return last_write_; }

  /// TLS has not been agreed on yet.
  [[nodiscard]] bool is_securing() const { return tls_ && tls_->state() == TlsSession::State::kHandshake; }
  /// Tells the client that no more will follow. What is queued has to be flushed before.
  void end_output();
  void close();
  [[nodiscard]] boost::asio::any_io_executor executor() { return socket_.get_executor(); }

  /// Of a header and of requests sent ahead.
  static constexpr std::size_t kInputBytesMax = std::size_t{64} << 10;

 private:
  void on_readable(const std::shared_ptr<WireOwner>& owner);
  void write_some(const std::shared_ptr<WireOwner>& owner);
  void on_written(const std::shared_ptr<WireOwner>& owner, bool failed, std::size_t bytes);

  Socket socket_;
  std::unique_ptr<TlsSession> tls_;
  std::string input_;
  std::size_t input_begin_ = 0;
  std::string outgoing_;           ///< plain; waits behind `writing_`
  std::string handshake_;          ///< of TLS, ready to be sent
  std::string writing_;            ///< what the pending write reads from
  std::size_t written_bytes_ = 0;  ///< of `writing_`
  TimePoint last_write_{};
  bool reading_ = false;
  bool write_pending_ = false;
};

}  // namespace lockstep::daemon
