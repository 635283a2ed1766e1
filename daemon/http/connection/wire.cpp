#include "daemon/http/connection/wire.hpp"

#include <array>
#include <chrono>
#include <poll.h>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ip/tcp.hpp>

namespace lockstep::daemon {
namespace {

using boost::system::error_code;

constexpr std::size_t kReadBytes = std::size_t{16} << 10;
/// What an idle connection may keep for its next answer.
constexpr std::size_t kKeptBytes = std::size_t{64} << 10;

/// What TLS may want to say while the client reads none of it. A handshake with a long chain of certificates takes some 100 KiB.
constexpr std::size_t kHandshakeBytesMax = std::size_t{256} << 10;

void empty(std::string& text) {
  text.clear();
  if (text.capacity() > kKeptBytes) {
    text.shrink_to_fit();
  }
}

}  // namespace

Wire::Wire(Socket socket, std::unique_ptr<TlsSession> tls) : socket_(std::move(socket)), tls_(std::move(tls)) {
  error_code ignored;
  socket_.non_blocking(true, ignored);
  socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);  // tokens are small and must not wait for an acknowledgement; fails on a Unix socket
}

void Wire::read(const std::shared_ptr<WireOwner>& owner) {
  if (reading_ || input().size() >= kInputBytesMax) {
    return;
  }
  reading_ = true;
  // Waits without a buffer: an idle connection holds none, and `input_` may be consumed meanwhile.
  socket_.async_wait(Socket::wait_read, [this, owner](error_code error) {
    reading_ = false;
    if (error != boost::asio::error::operation_aborted) {
      on_readable(owner);
    }
  });
}

void Wire::on_readable(const std::shared_ptr<WireOwner>& owner) {
  std::array<char, kReadBytes> piece;
  error_code error;
  const std::size_t bytes = socket_.read_some(boost::asio::buffer(piece), error);
  if (error == boost::asio::error::would_block || error == boost::asio::error::try_again) {
    read(owner);
    return;
  }
  if (error && error != boost::asio::error::eof) {
    owner->on_broken();
    return;
  }
  bool ended = static_cast<bool>(error);
  if (!tls_) {
    input_.append(piece.data(), bytes);
  } else if (!ended) {
    const TlsSession::State state = tls_->receive({piece.data(), bytes}, input_, handshake_);
    ended = state == TlsSession::State::kClosed || state == TlsSession::State::kFailed;
    flush(owner);
    // Each of its requests for new keys, or for another handshake, is answered: one that reads none of the answers would fill this memory.
    if (handshake_.size() > kHandshakeBytesMax) {
      owner->on_broken();
      return;
    }
  }
  owner->on_input(ended);
}

void Wire::watch(const std::shared_ptr<WireOwner>& owner) {
  socket_.async_wait(Socket::wait_error, [this, owner](error_code error) {
    if (error || !socket_.is_open()) {
      return;
    }
    // Urgent data comes here too. It is not waited for again, as it would come at once: such a client is noticed when a send fails.
    pollfd state{.fd = socket_.native_handle(), .events = 0, .revents = 0};
    if (::poll(&state, 1, 0) == 1) {
      owner->on_broken();
    }
  });
}

void Wire::consume(std::size_t bytes) {
  input_begin_ += bytes;
  if (input_begin_ == input_.size()) {
    input_.clear();
    input_begin_ = 0;
  } else if (input_begin_ >= kInputBytesMax) {
    input_.erase(0, input_begin_);
    input_begin_ = 0;
  }
}

void Wire::flush(const std::shared_ptr<WireOwner>& owner) {
  if (write_pending_ || (outgoing_.empty() && handshake_.empty())) {
    return;
  }
  last_write_ = std::chrono::steady_clock::now();
  write_some(owner);
}

void Wire::write_some(const std::shared_ptr<WireOwner>& owner) {
  if (written_bytes_ == writing_.size()) {
    writing_.clear();
    written_bytes_ = 0;
    writing_.swap(handshake_);
    if (!tls_) {
      writing_.swap(outgoing_);
    } else if (!is_securing()) {
      if (tls_->state() != TlsSession::State::kFailed) {
        tls_->send(outgoing_, writing_);
      }
      outgoing_.clear();
    }
    if (writing_.empty()) {
      return;
    }
  }
  write_pending_ = true;
  socket_.async_write_some(boost::asio::buffer(writing_.data() + written_bytes_, writing_.size() - written_bytes_),
                           [this, owner](error_code error, std::size_t bytes) { on_written(owner, static_cast<bool>(error), bytes); });
}

void Wire::on_written(const std::shared_ptr<WireOwner>& owner, bool failed, std::size_t bytes) {
  write_pending_ = false;
  if (!socket_.is_open()) {
    return;
  }
  if (failed) {
    owner->on_broken();
    return;
  }
  written_bytes_ += bytes;
  last_write_ = std::chrono::steady_clock::now();
  owner->on_sent(bytes);
  if (written_bytes_ < writing_.size() || !outgoing_.empty() || !handshake_.empty()) {
    write_some(owner);
  }
  if (!write_pending_ && socket_.is_open()) {
    empty(writing_);
    empty(outgoing_);
    written_bytes_ = 0;
    owner->on_flushed();
  }
}

void Wire::end_output() {
  error_code ignored;
  if (tls_) {
    std::string farewell;
    tls_->end(farewell);
    socket_.write_some(boost::asio::buffer(farewell), ignored);  // a few bytes; a client whose window is full does without
  }
  socket_.shutdown(Socket::shutdown_send, ignored);
}

void Wire::close() {
  error_code ignored;
  socket_.close(ignored);
}

}  // namespace lockstep::daemon
