// ReportCollection: puts the parts of the reports together that one question to all members brings.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/peer/wire/frame.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/comm/peer_channel.hpp"

namespace lockstep::comm::peer {

/// Each member's report is complete, or given up with a cause. No I/O, no time.
/// Threads  one at a time.
class ReportCollection {
 public:
  ReportCollection(std::uint32_t number, const GroupView& view);

  [[nodiscard]] std::uint32_t number() const { return number_; }
  /// Parts of another question are left out: they are late. A report that grows beyond kReportBytesMax is given up.
  void on_part(int member, const ReportPartFrame& part);
  /// Nothing when the member's report is complete or given up.
  void give_up(int member, const Error& error);
  void give_up_all(const Error& error);
  [[nodiscard]] bool complete() const { return open_count_ == 0; }
  /// Of all other members, by index.
  [[nodiscard]] std::vector<PeerReport> take();

 private:
  void close(int member, Status status);

  std::uint32_t number_;
  std::vector<PeerReport> reports_;  ///< [members]; own entry unused
  std::vector<bool> open_;           ///< [members]
  int own_;
  int open_count_;
};

}  // namespace lockstep::comm::peer
