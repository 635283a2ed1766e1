// FailureDetector: decides from what the sockets bring which peer is lost, and when one was last seen to make progress. No I/O and no clock of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "comm/peer/wire/frame.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/comm/peer_channel.hpp"

namespace lockstep::comm::peer {

/// The first failure is kept: later ones are mostly its consequences.
/// Threads  `failure`, `last_progress`: any, atomics only while all is well. The rest: any, under a short lock.
class FailureDetector {
 public:
  FailureDetector(GroupView view, Duration heartbeat_interval, Duration stall_timeout, TimePoint now);

  void on_connected(int member, TimePoint now);
  void on_heartbeat(int member, const ProgressReport& report, TimePoint now);
  void on_goodbye(int member);
  /// `cause` ends the sentence "rank 2: ...".
  void on_closed(int member, const std::string& cause);
  void on_report(int member, const FailureFrame& report);
  /// To be called every heartbeat interval. Counts silence in rounds, each for two intervals at most: after a time in which this process itself did not run
  /// (stopped, or starved), nobody is lost before the sockets could be read.
  void on_round(TimePoint now);
  /// This member leaves: from now on nobody's silence or closed connection is a failure.
  void leave();

  [[nodiscard]] Status failure() const;
  [[nodiscard]] TimePoint last_progress() const;
  [[nodiscard]] std::vector<PeerState> states(TimePoint now) const;
  [[nodiscard]] bool connected(int member) const;

 private:
  struct Peer {
    bool connected = false;
    bool said_goodbye = false;
    TimePoint last_heard{};
    Duration silent{};
    ProgressReport progress{};
  };

  [[nodiscard]] std::int32_t rank_of(int member) const { return view_.members[static_cast<std::size_t>(member)]; }
  void fail_locked(Error error);

  const GroupView view_;
  const Duration heartbeat_interval_;
  const Duration stall_timeout_;

  std::atomic<bool> failed_{false};
  std::atomic<TimePoint::rep> last_progress_;  ///< since the steady clock's epoch

  mutable std::mutex mutex_;
  std::vector<Peer> peers_;  ///< [members]; own entry unused
  TimePoint last_round_;
  bool leaving_ = false;
  Error error_{};
};

}  // namespace lockstep::comm::peer
