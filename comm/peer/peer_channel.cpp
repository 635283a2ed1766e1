#include "lockstep/comm/peer_channel.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <fmt/format.h>

#include "comm/peer/connection.hpp"
#include "comm/peer/failure_detector.hpp"
#include "comm/peer/handshake.hpp"
#include "comm/peer/listen_address.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::comm {

namespace peer {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Strand = asio::strand<asio::io_context::executor_type>;

/// Between two attempts to reach a peer, and after an accept that failed for want of descriptors.
constexpr Duration kRetryInterval = std::chrono::milliseconds(100);
/// How often `connect` and `flush` look at their deadline at least, whatever it says itself.
constexpr Duration kWaitSliceMax = std::chrono::milliseconds(50);
/// Unauthenticated connections at one time beyond one of each member: more are closed at once.
constexpr std::size_t kStrangersMax = 16;

TimePoint now() {
  return SteadyClock::instance().now();
}

std::string to_text(const PeerEndpoint& endpoint) {
  return fmt::format("{}:{}", asio::ip::address_v4(endpoint.address).to_string(), endpoint.port);
}

/// Why a member is not connected yet.
struct Obstacle {
  std::string cause{};
  bool misconfigured = false;  ///< a member that is set up differently, not a lack of answer
  TimePoint give_up_at{};      ///< of a misconfigured one: a stranger may have spoken in the member's name, so the true one gets its time
};

/// What was said to all, for the members that connect later: the newest of each.
struct Said {
  std::optional<WakeFrame> wake{};
  std::optional<FailureFrame> failure{};
  std::optional<GoodbyeFrame> goodbye{};
};

/// The sockets and their handlers, kept alive by the handlers. What runs on the strand is marked so; the rest may be called from any thread.
class Mesh : public std::enable_shared_from_this<Mesh> {
 public:
  Mesh(asio::io_context& io, const GroupView& view, const StepProgress& progress, PeerChannelOptions options)
      : view_(view),
        progress_(progress),
        options_(std::move(options)),
        detector_(view, options_.heartbeat_interval, options_.stall_timeout, now()),
        strand_(asio::make_strand(io)),
        acceptor_(strand_),
        accept_timer_(strand_),
        round_timer_(strand_),
        connections_(view.members.size()),
        kept_wakes_(view.members.size()),
        obstacles_(view.members.size()) {}

  Status listen() {
    LOCKSTEP_ASSIGN_OR_RETURN(const ListenAddress address, choose_listen_address(options_.bind_address, options_.single_host));
    const tcp::endpoint wanted(asio::ip::address_v4(address.bind), 0);
    error_code error;
    acceptor_.open(wanted.protocol(), error);
    if (!error) {
      acceptor_.bind(wanted, error);
    }
    if (!error) {
      acceptor_.listen(asio::socket_base::max_listen_connections, error);
    }
    if (error) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("peer address {}: cannot listen there ({}); expected an IPv4 address of this host",
                                                            wanted.address().to_string(), error.message())};
    }
    endpoint_ = {.address = address.advertise, .port = acceptor_.local_endpoint().port()};
    return {};
  }

  void start() {
    post([](Mesh& mesh) {
      mesh.accept_next();
      mesh.round_timer_.expires_after(mesh.options_.heartbeat_interval);
      mesh.wait_round();
    });
  }

  /// The io_context runs no more: closing from this thread disturbs nobody.
  void shut_down() {
    set_wake_receiver(nullptr);
    over_ = true;
    error_code ignored;
    acceptor_.close(ignored);
    accept_timer_.cancel();
    round_timer_.cancel();
    for (const auto& handshake : std::exchange(handshakes_, {})) {
      handshake->stop();
    }
    for (const auto& connection : connections_) {
      if (connection) {
        connection->close();
      }
    }
  }

  PeerEndpoint endpoint() const { return endpoint_; }
  const FailureDetector& detector() const { return detector_; }

  Status connect(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) {
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

  void broadcast_wake(const WakeFrame& wake) {
    {
      const std::lock_guard lock(mutex_);
      const bool posted = pending_wake_.has_value();
      if (!posted || std::tie(pending_wake_->epoch, pending_wake_->step) < std::tie(wake.epoch, wake.step)) {
        pending_wake_ = wake;
      }
      if (posted) {
        return;
      }
    }
    post([](Mesh& mesh) {
      std::unique_lock lock(mesh.mutex_);
      mesh.said_.wake = std::exchange(mesh.pending_wake_, std::nullopt);
      lock.unlock();
      mesh.send_all(*mesh.said_.wake);
    });
  }

  void set_wake_receiver(WakeReceiver* receiver) {
    {
      const std::lock_guard lock(receiver_mutex_);
      receiver_ = receiver;
    }
    post([](Mesh& mesh) {
      const std::lock_guard lock(mesh.receiver_mutex_);
      mesh.deliver_kept_locked();
    });
  }

  void report_failure(const Error& error) {
    post([frame = FailureFrame{.code = error.code, .rank = error.rank, .message = error.message.substr(0, kFailureMessageBytesMax)}](Mesh& mesh) {
      mesh.said_.failure = frame;
      mesh.send_all(frame);
    });
  }

  void say_goodbye() {
    detector_.leave();
    post([](Mesh& mesh) {
      mesh.said_.goodbye = GoodbyeFrame{};
      mesh.send_all(GoodbyeFrame{});
    });
  }

  Status flush(const Deadline& deadline) {
    const auto done = std::make_shared<bool>(false);
    post([done](Mesh& mesh) {
      mesh.flushes_.push_back(done);
      mesh.finish_flushes();
    });
    std::unique_lock lock(mutex_);
    while (!*done) {
      if (const Status status = deadline.check(); !status) {
        return Error{status.error().code, fmt::format("messages to peers were not written: {}", status.error().message), status.error().rank};
      }
      changed_.wait_until(lock, std::min(deadline.next_check(), now() + kWaitSliceMax));
    }
    return {};
  }

 private:
  template <typename Action>
  void post(Action action) {
    asio::post(strand_, [self = shared_from_this(), action = std::move(action)] {
      if (!self->over_) {
        action(*self);
      }
    });
  }

  // ---- on the strand: making connections

  Identity identity() const { return {.secret = options_.secret, .epoch = view_.epoch, .member_count = view_.size(), .member = view_.my_index}; }

  void accept_next() {
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

  void welcome(tcp::socket socket) {
    const auto slot = std::make_shared<std::weak_ptr<Handshake>>();
    const auto handshake = start_acceptor(std::move(socket), identity(), options_.authentication_timeout,
                                          [self = shared_from_this(), slot](const HandshakeOutcome& outcome, tcp::socket made) {
                                            self->handshakes_.erase(slot->lock());
                                            self->on_accepted(outcome, std::move(made));
                                          });
    *slot = handshake;
    handshakes_.insert(handshake);
  }

  void on_accepted(const HandshakeOutcome& outcome, tcp::socket socket) {
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

  void dial(const ConnectTarget& target) {
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

  void on_dialed(const HandshakeOutcome& outcome, const ConnectTarget& target, tcp::socket socket) {
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

  void note(int member, Obstacle obstacle) {
    const std::lock_guard lock(mutex_);
    obstacles_[static_cast<std::size_t>(member)] = std::move(obstacle);
    changed_.notify_all();
  }

  void adopt(const HandshakeOutcome& outcome, tcp::socket socket) {
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
    connection->send(heartbeat());
    // A member that fails or leaves while others still connect to it must be understood by those too.
    send_if(*connection, said_.wake);
    send_if(*connection, said_.failure);
    send_if(*connection, said_.goodbye);
    const std::lock_guard lock(mutex_);
    ++connected_count_;
    changed_.notify_all();
  }

  void stop_connecting() {
    dialing_ = false;
    error_code ignored;
    acceptor_.close(ignored);
    for (const auto& handshake : std::exchange(handshakes_, {})) {
      handshake->stop();
    }
  }

  // ---- on the strand: connected

  HeartbeatFrame heartbeat() const { return {.progress = progress_.report(), .sender_clock_ns = std::chrono::nanoseconds(now().time_since_epoch()).count()}; }

  void wait_round() {
    round_timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (error || self->over_) {
        return;
      }
      self->detector_.on_round(now());
      self->send_all(self->heartbeat());
      // From now, not from the last expiry: after a time in which we did not run, missed rounds must not all fire at once.
      self->round_timer_.expires_after(self->options_.heartbeat_interval);
      self->wait_round();
    });
  }

  template <typename FrameType>
  static void send_if(Connection& connection, const std::optional<FrameType>& frame) {
    if (frame) {
      connection.send(*frame);
    }
  }

  template <typename FrameType>
  void send_all(const FrameType& frame) {
    for (const auto& connection : connections_) {
      if (connection) {
        connection->send(frame);
      }
    }
  }

  void on_frame(int member, const Frame& frame) {
    if (const auto* beat = std::get_if<HeartbeatFrame>(&frame)) {
      detector_.on_heartbeat(member, beat->progress, now());
    } else if (const auto* wake = std::get_if<WakeFrame>(&frame)) {
      deliver(member, *wake);
    } else if (const auto* report = std::get_if<FailureFrame>(&frame)) {
      detector_.on_report(member, *report);
    } else {
      detector_.on_goodbye(member);
    }
  }

  void on_closed(int member, const std::string& cause) {
    detector_.on_closed(member, cause);
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

  void deliver(int member, const WakeFrame& wake) {
    const std::lock_guard lock(receiver_mutex_);
    std::optional<WakeFrame>& kept = kept_wakes_[static_cast<std::size_t>(member)];
    if (!kept || std::tie(kept->epoch, kept->step) < std::tie(wake.epoch, wake.step)) {
      kept = wake;
    }
    deliver_kept_locked();
  }

  void deliver_kept_locked() {
    for (std::size_t member = 0; receiver_ != nullptr && member < kept_wakes_.size(); ++member) {
      if (const auto wake = std::exchange(kept_wakes_[member], std::nullopt)) {
        receiver_->on_wake(static_cast<std::int32_t>(member), wake->epoch, wake->step);
      }
    }
  }

  void finish_flushes() {
    const bool idle = std::ranges::all_of(connections_, [](const auto& connection) { return !connection || connection->idle(); });
    if (!idle || flushes_.empty()) {
      return;
    }
    const std::lock_guard lock(mutex_);
    for (const auto& done : std::exchange(flushes_, {})) {
      *done = true;
    }
    changed_.notify_all();
  }

  // ---- on the thread that waits

  Status wait_connected(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) {
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

  Error missing_locked(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) const {
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
    return {ErrorCode::kTimeout, fmt::format("no peer connection within {:.1f} s to: {}", std::chrono::duration<double>(deadline.limit()).count(), list),
            first};
  }

  const GroupView view_;
  const StepProgress& progress_;
  const PeerChannelOptions options_;
  PeerEndpoint endpoint_{};
  FailureDetector detector_;

  Strand strand_;
  // Used on the strand only.
  bool over_ = false;
  bool dialing_ = false;
  tcp::acceptor acceptor_;
  asio::steady_timer accept_timer_;
  asio::steady_timer round_timer_;
  std::vector<std::shared_ptr<Connection>> connections_;  ///< [members]; shared with their own handlers; a closed one stays, so that nobody takes its place
  Said said_;
  std::set<std::shared_ptr<Handshake>> handshakes_;  ///< shared with their own handlers
  std::vector<std::shared_ptr<bool>> flushes_;       ///< shared with the waiting threads; the bools are under mutex_

  std::mutex receiver_mutex_;  ///< held during on_wake
  WakeReceiver* receiver_ = nullptr;
  std::vector<std::optional<WakeFrame>> kept_wakes_;  ///< [members], the newest that nobody received yet

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<WakeFrame> pending_wake_;  ///< set: an action that sends it is posted
  std::vector<Obstacle> obstacles_;        ///< [members]
  int connected_count_ = 0;
};

class TcpPeerChannel final : public PeerChannel {
 public:
  explicit TcpPeerChannel(std::shared_ptr<Mesh> mesh) : mesh_(std::move(mesh)) {}
  ~TcpPeerChannel() override { mesh_->shut_down(); }
  TcpPeerChannel(const TcpPeerChannel&) = delete;
  TcpPeerChannel& operator=(const TcpPeerChannel&) = delete;

  [[nodiscard]] PeerEndpoint endpoint() const override { return mesh_->endpoint(); }
  [[nodiscard]] Status connect(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) override { return mesh_->connect(endpoints, deadline); }
  void set_wake_receiver(WakeReceiver* receiver) override { mesh_->set_wake_receiver(receiver); }
  void broadcast_wake(std::int32_t epoch, std::int64_t step) override { mesh_->broadcast_wake({.epoch = epoch, .step = step}); }
  void report_failure(const Error& error) override { mesh_->report_failure(error); }
  void say_goodbye() override { mesh_->say_goodbye(); }
  [[nodiscard]] Status flush(const Deadline& deadline) override { return mesh_->flush(deadline); }
  [[nodiscard]] Status failure() const override { return mesh_->detector().failure(); }
  [[nodiscard]] TimePoint last_progress() const override { return mesh_->detector().last_progress(); }
  [[nodiscard]] std::vector<PeerState> states() const override { return mesh_->detector().states(now()); }

 private:
  std::shared_ptr<Mesh> mesh_;  ///< shared with the handlers that wait in the io_context
};

}  // namespace
}  // namespace peer

Result<std::unique_ptr<PeerChannel>> PeerChannel::create(boost::asio::io_context& io, const GroupView& view, const StepProgress& progress,
                                                         PeerChannelOptions options) {
  if (options.heartbeat_interval <= Duration::zero() || options.stall_timeout < 2 * options.heartbeat_interval) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("stall timeout {:.3f} s with heartbeats every {:.3f} s: expected at least two heartbeats in it",
                             std::chrono::duration<double>(options.stall_timeout).count(), std::chrono::duration<double>(options.heartbeat_interval).count())};
  }
  if (view.size() > 1 && options.secret.empty()) {
    return Error{ErrorCode::kInvalidArgument, "the group secret is empty: set LOCKSTEP_GROUP_SECRET to the same random text on all members"};
  }
  const auto mesh = std::make_shared<peer::Mesh>(io, view, progress, std::move(options));
  if (view.size() > 1) {
    LOCKSTEP_RETURN_IF_ERROR(mesh->listen());
    mesh->start();
  }
  return std::unique_ptr<PeerChannel>(std::make_unique<peer::TcpPeerChannel>(mesh));
}

}  // namespace lockstep::comm
