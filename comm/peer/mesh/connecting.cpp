#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "comm/peer/listen_address.hpp"
#include "comm/peer/mesh/mesh.hpp"

namespace lockstep::comm::peer {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

/// Between two attempts to reach a peer, and after an accept that failed for want of descriptors.
constexpr Duration kRetryInterval = std::chrono::milliseconds(100);
/// How often `connect` looks at its deadline at least, whatever it says itself.
constexpr Duration kWaitSliceMax = std::chrono::milliseconds(50);
/// Unauthenticated connections at one time beyond one of each member: more are closed at once.
constexpr std::size_t kStrangersMax = 16;

TimePoint now() {
  return SteadyClock::instance().now();
}

std::string to_text(const PeerEndpoint& endpoint) {
  return fmt::format("{}:{}", asio::ip::address_v4(endpoint.address).to_string(), endpoint.port);
}

}  // namespace

Status Mesh::listen() {
  LOCKSTEP_ASSIGN_OR_RETURN(const ListenAddress address, choose_listen_address(options_.bind_address, options_.single_host));
  const tcp::endpoint wanted(asio::ip::address_v4(address.bind), options_.port);
  error_code error;
  acceptor_.open(wanted.protocol(), error);
  if (!error && options_.port != 0) {
    acceptor_.set_option(tcp::acceptor::reuse_address(true), error);  // connections of a group that has just ended still hold the port
  }
  if (!error) {
    acceptor_.bind(wanted, error);
  }
  if (!error) {
    acceptor_.listen(asio::socket_base::max_listen_connections, error);
  }
  if (error) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("peer address {} port {}: cannot listen there ({}); expected an IPv4 address of this host and a free port, or port 0",
                             wanted.address().to_string(), options_.port, error.message())};
  }
  endpoint_ = {.address = address.advertise, .port = acceptor_.local_endpoint().port()};
  return {};
}

Status Mesh::connect(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) {
  if (endpoints.size() != view_.members.size()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} peer endpoints for {} members", endpoints.size(), view_.members.size())};
  }
  // One connection a pair: the lower index connects to the higher.
  post([endpoints](Mesh& mesh) {
    mesh.dialing_ = true;
    for (int member = mesh.view_.my_index + 1; member < mesh.view_.size(); ++member) {
      mesh.dial({.member = member, .endpoint = endpoints[static_cast<std::size_t>(member)]});
    }
  });
  Status status = wait_connected(endpoints, deadline);
  if (status) {
    // After a failure the door stays open until the channel goes: members that are still connecting must hear the cause, not a broken connection.
    post([](Mesh& mesh) { mesh.stop_connecting(); });
  }
  return status;
}

void Mesh::accept_next() {
  acceptor_.async_accept([self = shared_from_this()](const error_code& error, tcp::socket socket) {
    if (self->over_ || !self->acceptor_.is_open()) {
      return;
    }
    if (error) {
      self->accept_timer_.expires_after(kRetryInterval);
      self->accept_timer_.async_wait([self](const error_code& cancelled) {
        if (!cancelled && !self->over_ && self->acceptor_.is_open()) {
          self->accept_next();
        }
      });
      return;
    }
    if (self->handshakes_.size() < self->view_.members.size() + kStrangersMax) {
      self->welcome(std::move(socket));
    }
    self->accept_next();
  });
}

void Mesh::welcome(tcp::socket socket) {
  const auto slot = std::make_shared<std::weak_ptr<Handshake>>();
  const auto handshake = start_acceptor(std::move(socket), identity(), options_.authentication_timeout,
                                        [self = shared_from_this(), slot](const HandshakeOutcome& outcome, tcp::socket made) {
                                          self->handshakes_.erase(slot->lock());
                                          self->on_accepted(outcome, std::move(made));
                                        });
  *slot = handshake;
  handshakes_.insert(handshake);
}

void Mesh::on_accepted(const HandshakeOutcome& outcome, tcp::socket socket) {
  if (outcome.status) {
    // A second connection of one member, or one in the wrong direction, is closed by leaving this scope.
    if (outcome.member < view_.my_index && !connections_[static_cast<std::size_t>(outcome.member)]) {
      adopt(outcome, std::move(socket));
    }
    return;
  }
  if (outcome.member >= 0 && outcome.member < view_.my_index && outcome.status.error().code == ErrorCode::kInvalidArgument) {
    note(outcome.member, {.cause = outcome.status.error().message, .misconfigured = true, .give_up_at = now() + options_.authentication_timeout});
  }
}

void Mesh::dial(const ConnectTarget& target) {
  // Twice the acceptor's limit: we never give up on a connection that the acceptor may still accept.
  const auto slot = std::make_shared<std::weak_ptr<Handshake>>();
  const auto handshake = start_connector(tcp::socket(strand_), target, identity(), 2 * options_.authentication_timeout,
                                         [self = shared_from_this(), slot, target](const HandshakeOutcome& outcome, tcp::socket made) {
                                           self->handshakes_.erase(slot->lock());
                                           self->on_dialed(outcome, target, std::move(made));
                                         });
  if (handshake) {
    *slot = handshake;
    handshakes_.insert(handshake);
  }
}

void Mesh::on_dialed(const HandshakeOutcome& outcome, const ConnectTarget& target, tcp::socket socket) {
  if (outcome.status) {
    adopt(outcome, std::move(socket));
    return;
  }
  // We chose the address: who answers there with another secret is the member itself, no need to wait for a better one.
  const bool misconfigured = outcome.status.error().code == ErrorCode::kInvalidArgument || outcome.status.error().code == ErrorCode::kInternal;
  note(target.member, {.cause = outcome.status.error().message, .misconfigured = misconfigured, .give_up_at = now()});
  if (misconfigured || !dialing_) {
    return;
  }
  const auto timer = std::make_shared<asio::steady_timer>(strand_, kRetryInterval);
  timer->async_wait([self = shared_from_this(), timer, target](const error_code&) {
    if (!self->over_ && self->dialing_) {
      self->dial(target);
    }
  });
}

void Mesh::note(int member, Obstacle obstacle) {
  const std::lock_guard lock(mutex_);
  obstacles_[static_cast<std::size_t>(member)] = std::move(obstacle);
  changed_.notify_all();
}

void Mesh::adopt(const HandshakeOutcome& outcome, tcp::socket socket) {
  const int member = outcome.member;
  // Weak, as the mesh owns the connection.
  const std::weak_ptr<Mesh> weak = weak_from_this();
  const auto connection = std::make_shared<Connection>(std::move(socket), outcome.keys,
                                                       ConnectionEvents{
                                                           .on_frame =
                                                               [weak, member](const Frame& frame) {
                                                                 if (const auto mesh = weak.lock()) {
                                                                   mesh->on_frame(member, frame);
                                                                 }
                                                               },
                                                           .on_closed =
                                                               [weak, member](const std::string& cause) {
                                                                 if (const auto mesh = weak.lock()) {
                                                                   mesh->on_closed(member, cause);
                                                                 }
                                                               },
                                                           .on_idle =
                                                               [weak] {
                                                                 if (const auto mesh = weak.lock()) {
                                                                   mesh->finish_flushes();
                                                                 }
                                                               },
                                                       });
  connections_[static_cast<std::size_t>(member)] = connection;
  detector_.on_connected(member, now());
  connection->start();
  connection->send(heartbeat(member));
  // A member that fails or leaves while others still connect to it must be understood by those too.
  send_if(*connection, said_.wake);
  send_if(*connection, said_.failure);
  send_if(*connection, said_.goodbye);
  const std::lock_guard lock(mutex_);
  ++connected_count_;
  changed_.notify_all();
}

void Mesh::stop_connecting() {
  dialing_ = false;
  error_code ignored;
  acceptor_.close(ignored);
  for (const auto& handshake : std::exchange(handshakes_, {})) {
    handshake->stop();
  }
}

Status Mesh::wait_connected(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  while (connected_count_ + 1 < view_.size()) {
    LOCKSTEP_RETURN_IF_ERROR(detector_.failure());
    for (std::size_t member = 0; member < obstacles_.size(); ++member) {
      const Obstacle& obstacle = obstacles_[member];
      if (obstacle.misconfigured && now() >= obstacle.give_up_at && !detector_.connected(static_cast<int>(member))) {
        return Error{ErrorCode::kInvalidArgument, fmt::format("rank {} at {}: {}", view_.members[member], to_text(endpoints[member]), obstacle.cause),
                     view_.members[member]};
      }
    }
    if (Status status = deadline.check(); !status) {
      return status.error().code == ErrorCode::kTimeout ? missing_locked(endpoints, deadline) : status;
    }
    changed_.wait_until(lock, std::min(deadline.next_check(), now() + kWaitSliceMax));
  }
  return detector_.failure();
}

Error Mesh::missing_locked(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) const {
  std::string list;
  std::optional<int> first;
  for (int member = 0; member < view_.size(); ++member) {
    const auto index = static_cast<std::size_t>(member);
    if (member == view_.my_index || detector_.connected(member)) {
      continue;
    }
    first = first.value_or(view_.members[index]);
    const std::string& cause = obstacles_[index].cause;
    list += fmt::format("{}rank {} at {} ({})", list.empty() ? "" : ", ", view_.members[index], to_text(endpoints[index]),
                        !cause.empty() ? cause : (member < view_.my_index ? "it has not connected" : "no answer"));
  }
  return {ErrorCode::kTimeout, fmt::format("no peer connection within {:.1f} s to: {}", std::chrono::duration<double>(deadline.limit()).count(), list), first};
}

}  // namespace lockstep::comm::peer
