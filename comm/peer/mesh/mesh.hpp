// Mesh: one authenticated connection to every other member, kept by handlers on one strand.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include "comm/peer/connection.hpp"
#include "comm/peer/failure_detector.hpp"
#include "comm/peer/handshake.hpp"
#include "comm/peer/mesh/clock_difference.hpp"
#include "comm/peer/mesh/report_collection.hpp"
#include "lockstep/comm/peer_channel.hpp"

namespace lockstep::comm::peer {

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

/// The sockets and their handlers, kept alive by the handlers. See PeerChannel for what the public functions promise.
/// Threads  the public functions: any, but shut_down, which is called when the io_context runs no more.
class Mesh : public std::enable_shared_from_this<Mesh> {
 public:
  Mesh(boost::asio::io_context& io, const GroupView& view, const StepProgress& progress, PeerChannelOptions options);

  Status listen();
  void start();
  /// The io_context runs no more: closing from this thread disturbs nobody.
  void shut_down();

  PeerEndpoint endpoint() const { return endpoint_; }
  const FailureDetector& detector() const { return detector_; }

  Status connect(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline);
  void broadcast_wake(const WakeFrame& wake);
  void set_wake_receiver(WakeReceiver* receiver);
  void report_failure(const Error& error);
  void say_goodbye();
  void set_report_source(ReportSource* source);
  void ask_reports(std::int64_t argument, Duration limit, std::function<void(std::vector<PeerReport>)> done, std::optional<std::int32_t> only);
  Status flush(const Deadline& deadline);

 private:
  template <typename Action>
  void post(Action action) {
    boost::asio::post(strand_, [self = shared_from_this(), action = std::move(action)] {
      if (!self->over_) {
        action(*self);
      }
    });
  }

  // On the strand, in connecting.cpp: making connections.
  Identity identity() const { return {.secret = options_.secret, .epoch = view_.epoch, .member_count = view_.size(), .member = view_.my_index}; }
  void accept_next();
  void welcome(tcp::socket socket);
  void on_accepted(const HandshakeOutcome& outcome, tcp::socket socket);
  void dial(const ConnectTarget& target);
  void on_dialed(const HandshakeOutcome& outcome, const ConnectTarget& target, tcp::socket socket);
  void note(int member, Obstacle obstacle);
  void adopt(const HandshakeOutcome& outcome, tcp::socket socket);
  void stop_connecting();

  // On the thread that waits for them, there too.
  Status wait_connected(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline);
  Error missing_locked(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) const;

  // On the strand, in mesh.cpp: connected.
  HeartbeatFrame heartbeat(int member) const;
  void wait_round();
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
  void on_frame(int member, const Frame& frame);
  void on_closed(int member, const std::string& cause);
  void on_heartbeat(int member, const HeartbeatFrame& heartbeat);
  void on_report_request(int member, const ReportRequestFrame& request);
  void ask(std::int64_t argument, Duration limit, std::function<void(std::vector<PeerReport>)> done, std::optional<std::int32_t> only);
  void finish_reports_when_complete();
  std::vector<PeerReport> with_clocks(std::vector<PeerReport> reports) const;
  void deliver(int member, const WakeFrame& wake);
  void deliver_kept_locked();
  void finish_flushes();

  const GroupView view_;
  const StepProgress& progress_;
  const PeerChannelOptions options_;
  PeerEndpoint endpoint_{};
  FailureDetector detector_;

  boost::asio::strand<boost::asio::io_context::executor_type> strand_;
  // Used on the strand only.
  bool over_ = false;
  bool dialing_ = false;
  tcp::acceptor acceptor_;
  boost::asio::steady_timer accept_timer_;
  boost::asio::steady_timer round_timer_;
  std::vector<std::shared_ptr<Connection>> connections_;  ///< [members]; shared with their own handlers; a closed one stays, so that nobody takes its place
  std::vector<ClockDifference> clocks_;                   ///< [members]
  Said said_;
  ReportSource* report_source_ = nullptr;
  std::optional<ReportCollection> reports_;  ///< of the question that is open
  std::function<void(std::vector<PeerReport>)> reports_done_;
  std::uint32_t questions_ = 0;
  boost::asio::steady_timer reports_timer_;
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

}  // namespace lockstep::comm::peer
