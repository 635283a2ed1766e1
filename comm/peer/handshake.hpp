// Handshake: takes a fresh socket through authentication, within a time limit.
#pragma once

#include <functional>
#include <memory>

#include <boost/asio/ip/tcp.hpp>

#include "comm/peer/wire/authentication.hpp"
#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/core/deadline.hpp"

namespace lockstep::comm::peer {

using boost::asio::ip::tcp;

struct HandshakeOutcome {
  /// Of kInvalidArgument and kUnsupported see authentication.hpp; kTimeout; kPeerLost: the connection could not be made or broke.
  Status status;
  std::int32_t member = -1;  ///< who the peer is, or, with an error, says it is; -1 unknown
  LinkKeys keys{};
};

/// Called once, on the socket's strand. The socket is open only when the status is success.
using HandshakeDone = std::function<void(HandshakeOutcome outcome, tcp::socket socket)>;

/// One running handshake; stop() ends it early. Its own handlers keep it alive until `done` was called.      Threads  the socket's strand.
class Handshake {
 public:
  virtual ~Handshake() = default;
  Handshake(const Handshake&) = delete;
  Handshake& operator=(const Handshake&) = delete;
  /// `done` is not called any more.
  virtual void stop() = 0;

 protected:
  Handshake() = default;
};

struct ConnectTarget {
  std::int32_t member = 0;
  PeerEndpoint endpoint;
};

[[nodiscard]] std::shared_ptr<Handshake> start_connector(tcp::socket socket, const ConnectTarget& target, Identity self, Duration limit, HandshakeDone done);
[[nodiscard]] std::shared_ptr<Handshake> start_acceptor(tcp::socket socket, Identity self, Duration limit, HandshakeDone done);

}  // namespace lockstep::comm::peer
