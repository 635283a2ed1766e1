#include "comm/peer/handshake.hpp"

#include <array>
#include <fcntl.h>
#include <optional>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <fmt/format.h>

namespace lockstep::comm::peer {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;

void set_socket_options(tcp::socket& socket) {
  error_code ignored;  // both only cost time or tidiness when they fail
  socket.set_option(tcp::no_delay(true), ignored);
  // A program started by this process must not keep the connection open after us: peers see our death by its closing.
  static_cast<void>(::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC));
}

// The part that both sides share: socket, time limit, and reads and writes that end the handshake on an error.
class HandshakeBase : public Handshake, public std::enable_shared_from_this<HandshakeBase> {
 public:
  HandshakeBase(tcp::socket socket, Duration limit, HandshakeDone done)
      : socket_(std::move(socket)), timer_(socket_.get_executor()), limit_(limit), done_(std::move(done)) {}

  void stop() override {
    done_ = nullptr;
    close();
  }

 protected:
  void start_timer() {
    timer_.expires_after(limit_);
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) {
        self->finish(Error{ErrorCode::kTimeout, fmt::format("it did not authenticate within {:.1f} s", std::chrono::duration<double>(self->limit_).count())});
      }
    });
  }

  // Ends the handshake; only the first call counts.
  void finish(Status status) {
    if (!done_) {
      return;
    }
    timer_.cancel();
    const HandshakeDone done = std::exchange(done_, nullptr);
    if (!status) {
      close();
      done({.status = std::move(status), .member = member()}, std::move(socket_));
      return;
    }
    done({.status = {}, .member = member(), .keys = keys()}, std::move(socket_));
  }

  template <typename Next>
  void read(std::span<std::byte> bytes, Next next) {
    asio::async_read(socket_, asio::buffer(bytes.data(), bytes.size()),
                     [self = shared_from_this(), next = std::move(next)](const error_code& error, std::size_t) { self->proceed(error, next); });
  }
  template <typename Next>
  void write(std::span<const std::byte> bytes, Next next) {
    asio::async_write(socket_, asio::buffer(bytes.data(), bytes.size()),
                      [self = shared_from_this(), next = std::move(next)](const error_code& error, std::size_t) { self->proceed(error, next); });
  }
  template <typename Next>
  void proceed(const error_code& error, const Next& next) {
    if (!done_) {
      return;  // stopped, or out of time
    }
    if (error) {
      finish(Error{ErrorCode::kPeerLost, fmt::format("the connection broke during authentication ({})", error.message())});
      return;
    }
    next();
  }

  [[nodiscard]] virtual std::int32_t member() const = 0;
  [[nodiscard]] virtual LinkKeys keys() const = 0;
  tcp::socket& socket() { return socket_; }

 private:
  void close() {
    timer_.cancel();
    error_code ignored;
    socket_.close(ignored);
  }

  tcp::socket socket_;
  asio::steady_timer timer_;
  Duration limit_;
  HandshakeDone done_;
};

class Connector final : public HandshakeBase {
 public:
  Connector(tcp::socket socket, const ConnectTarget& target, ConnectorHandshake handshake, Duration limit, HandshakeDone done)
      : HandshakeBase(std::move(socket), limit, std::move(done)), target_(target), handshake_(std::move(handshake)) {}

  void start() {
    start_timer();
    const tcp::endpoint endpoint(asio::ip::address_v4(target_.endpoint.address), target_.endpoint.port);
    socket().async_connect(endpoint, [this, self = shared_from_this()](const error_code& error) {
      proceed(error, [this] {
        set_socket_options(socket());
        write(handshake_.hello(), [this] { read(challenge_, [this] { on_challenge(); }); });
      });
    });
  }

 private:
  void on_challenge() {
    Result<Mac> proof = handshake_.on_challenge(challenge_);
    if (!proof && proof.error().code == ErrorCode::kInvalidArgument) {
      // Zeros instead of a proof: the acceptor learns that the two are set up differently, and nothing about our secret.
      mac_ = {};
      write(mac_, [this, error = std::move(proof).error()] { finish(error); });
      return;
    }
    if (!proof) {
      finish(std::move(proof).error());
      return;
    }
    mac_ = *proof;
    write(mac_, [this] { read(mac_, [this] { finish(handshake_.on_confirmation(mac_)); }); });
  }
  [[nodiscard]] std::int32_t member() const override { return target_.member; }
  [[nodiscard]] LinkKeys keys() const override { return handshake_.keys(); }

  ConnectTarget target_;
  ConnectorHandshake handshake_;
  ChallengeBytes challenge_{};
  Mac mac_{};
};

class Acceptor final : public HandshakeBase {
 public:
  Acceptor(tcp::socket socket, Identity self, Duration limit, HandshakeDone done)
      : HandshakeBase(std::move(socket), limit, std::move(done)), handshake_(std::move(self)) {}

  void start() {
    set_socket_options(socket());
    start_timer();
    read(hello_, [this] { on_hello(); });
  }

 private:
  void on_hello() {
    Result<ChallengeBytes> challenge = handshake_.on_hello(hello_);
    if (!challenge) {
      finish(std::move(challenge).error());
      return;
    }
    challenge_ = *challenge;
    write(challenge_, [this] { read(mac_, [this] { on_proof(); }); });
  }
  void on_proof() {
    Result<Mac> confirmation = handshake_.on_proof(mac_);
    if (!confirmation) {
      finish(std::move(confirmation).error());
      return;
    }
    mac_ = *confirmation;
    write(mac_, [this] { finish({}); });
  }
  [[nodiscard]] std::int32_t member() const override { return handshake_.peer_member(); }
  [[nodiscard]] LinkKeys keys() const override { return handshake_.keys(); }

  AcceptorHandshake handshake_;
  HelloBytes hello_{};
  ChallengeBytes challenge_{};
  Mac mac_{};
};

}  // namespace

std::shared_ptr<Handshake> start_connector(tcp::socket socket, const ConnectTarget& target, Identity self, Duration limit, HandshakeDone done) {
  Result<ConnectorHandshake> handshake = ConnectorHandshake::create(std::move(self), target.member);
  if (!handshake) {
    done({.status = std::move(handshake).error(), .member = target.member}, std::move(socket));
    return nullptr;
  }
  const auto connector = std::make_shared<Connector>(std::move(socket), target, std::move(handshake).value(), limit, std::move(done));
  connector->start();
  return connector;
}

std::shared_ptr<Handshake> start_acceptor(tcp::socket socket, Identity self, Duration limit, HandshakeDone done) {
  const auto acceptor = std::make_shared<Acceptor>(std::move(socket), std::move(self), limit, std::move(done));
  acceptor->start();
  return acceptor;
}

}  // namespace lockstep::comm::peer
