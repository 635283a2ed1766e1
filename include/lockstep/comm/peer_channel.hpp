// PeerChannel: authenticated sockets between the daemons of a group: wake, heartbeats, failure reports, and what one member asks of another. It never steers a
// collective.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lockstep/comm/group.hpp"
#include "lockstep/comm/step_progress.hpp"
#include "lockstep/core/deadline.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::comm {

/// IPv4 address and port, in a form that fits the int32 all-reduce by which addresses are exchanged at start.
struct PeerEndpoint {
  std::uint32_t address = 0;  ///< host byte order
  std::uint16_t port = 0;
};

struct PeerChannelOptions {
  std::string secret;  ///< group secret, not empty when there are peers; members with another one are refused
  /// IPv4 address, or a network such as "10.0.0.0/24" for this host's address in it; "" chooses: loopback when all members share this host, else the address of
  /// the first usable interface.
  std::string bind_address;
  std::uint16_t port = 0;  ///< to listen on; 0: one that the kernel chooses
  Duration heartbeat_interval = std::chrono::milliseconds(100);
  Duration stall_timeout = std::chrono::seconds(10);
  Duration authentication_timeout = std::chrono::seconds(5);  ///< a connection that has not proven by then that it is a member's is dropped
  bool single_host = false;                                   ///< all members share this host: loopback will do
};

/// Whether a channel could listen there: the address is bound and let go. Both as in PeerChannelOptions.      Errors  kInvalidArgument as
/// PeerChannel::create's.
[[nodiscard]] Status check_peer_address(const std::string& bind_address, bool single_host);

/// What is known of one peer.
struct PeerState {
  std::int32_t member = 0;
  bool connected = false;
  double heartbeat_age_seconds = 0;
  ProgressReport progress{};
};

/// How far a peer's steady clock is ahead of this process's.
struct ClockEstimate {
  Duration ahead{};
  Duration error{};  ///< half of the quickest round trip: the truth is within it, either way
};

/// Longer reports are refused by who asked.
inline constexpr std::size_t kReportBytesMax = std::size_t{4} << 20U;

/// What this member tells peers of itself when one asks. What is in a report, and what may be asked, is for daemons of one version to know: the channel carries
/// bytes. Nothing in it may steer a collective.
class ReportSource {
 public:
  virtual ~ReportSource() = default;
  /// Called on the Asio thread; never blocks. `done` is called once, from any thread; empty bytes say that there is no report.
  virtual void make_report(std::int64_t argument, std::function<void(std::vector<std::byte> bytes)> done) = 0;

 protected:
  ReportSource() = default;
};

/// One peer's answer.
struct PeerReport {
  std::int32_t member = 0;
  /// Errors  kTimeout; kPeerLost: not connected, or lost meanwhile; kResourceExhausted: too long, or another question is open; kUnsupported: it has none.
  Status status{};
  std::vector<std::byte> bytes{};        ///< empty with an error
  std::optional<ClockEstimate> clock{};  ///< nullopt in the first moments of a connection
};

/// The group's sockets and the failure detector over them. A peer is lost when its connection breaks without a goodbye (a dead process: known at once), when no
/// heartbeat came for stall_timeout (stopped, or cut off), or when it reported a failure of its own. A peer whose heartbeat lives but whose step thread stands
/// still is not lost by itself: as a Watch this object lets the wait on it run out after the stall timeout since the last progress of any peer.
/// Ownership  borrows the io_context and the progress; destroyed after the io_context has stopped running, and before it is destroyed.
/// Threads    create, connect: before the io_context runs elsewhere or from any thread; `failure`, `last_progress`, `broadcast_wake`, `report_failure`,
///            `say_goodbye`, `states`, `set_report_source`, `ask_reports`: any, never blocking; connect and flush not on the io_context's threads.
class PeerChannel : public Watch, public WakeSender {
 public:
  /// Opens the listening socket; none in a group of one.      Errors  kInvalidArgument: the address cannot be bound, the secret is empty, stall_timeout is
  /// shorter than two heartbeats.
  [[nodiscard]] static Result<std::unique_ptr<PeerChannel>> create(boost::asio::io_context& io, const GroupView& view, const StepProgress& progress,
                                                                   PeerChannelOptions options);
  /// Where peers reach this one.
  [[nodiscard]] virtual PeerEndpoint endpoint() const = 0;
  /// Connects to all members and waits until all have authenticated each other (mutual challenge and response over the secret).
  /// Blocks the calling thread, not the io_context, which must be running.      Errors  kTimeout naming the members that are missing; kInvalidArgument: a
  /// secret differs.
  [[nodiscard]] virtual Status connect(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) = 0;
  /// From now on wakes go to `receiver` (nullptr: are kept); those that came earlier are delivered first, of each peer the newest.
  /// Waits while a wake is being delivered to the former receiver: not to be called under a lock that its on_wake takes.
  virtual void set_wake_receiver(WakeReceiver* receiver) = 0;
  /// Tells all peers why this member is about to leave, so that they name the true cause.
  virtual void report_failure(const Error& error) = 0;
  /// Who answers peers from now on; nullptr: nobody. Borrowed until the io_context runs no more.
  virtual void set_report_source(ReportSource* source) = 0;
  /// Asks all peers, or the `only` one, which is none that is not a peer, and calls `done` on the Asio thread with the answer of each that was asked when all
  /// have come, or at the limit with those that have. One question at a time: a second one is refused for each peer. Not called when the io_context ends first.
  /// Cost  4 MiB a peer at most; wakes and heartbeats overtake it.
  virtual void ask_reports(std::int64_t argument, Duration limit, std::function<void(std::vector<PeerReport>)> done,
                           std::optional<std::int32_t> only = std::nullopt) = 0;
  /// Says goodbye to all peers: connections that close after it are no failures.
  virtual void say_goodbye() = 0;
  /// Blocks until what was handed over has been written to the sockets, or the deadline.      Errors  kTimeout naming the ranks that do not read.
  [[nodiscard]] virtual Status flush(const Deadline& deadline) = 0;
  [[nodiscard]] virtual std::vector<PeerState> states() const = 0;
};

}  // namespace lockstep::comm
