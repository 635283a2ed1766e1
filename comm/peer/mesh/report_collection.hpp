// ReportCollection: puts the parts of the reports together that one question to all members, or to one, brings.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "comm/peer/wire/frame.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/comm/peer_channel.hpp"

namespace lockstep::comm::peer {

/// The report of each member that is asked is complete, or given up with a cause. No I/O, no time.
/// Threads  one at a time.
class ReportCollection {
 public:
  /// `only`: the one member that is asked; nullopt: all others.
  ReportCollection(std::uint32_t number, const GroupView& view, std::optional<std::int32_t> only = std::nullopt);

  [[nodiscard]] std::uint32_t number() const { return number_; }
  /// Parts of another question are left out: they are late. A report that grows beyond kReportBytesMax is given up.
  void on_part(int member, const ReportPartFrame& part);
  /// Nothing when the member's report is complete or given up.
  void give_up(int member, const Error& error);
  void give_up_all(const Error& error);
  [[nodiscard]] bool complete() const { return open_count_ == 0; }
  /// Of all that are asked, by index.
  [[nodiscard]] std::vector<PeerReport> take();

 private:
  void close(int member, Status status);

  std::uint32_t number_;
  std::vector<PeerReport> reports_;  ///< [members]; those of who is not asked unused
  std::vector<bool> open_;           ///< [members]
  std::vector<bool> asked_;          ///< [members]
  int open_count_ = 0;
};

}  // namespace lockstep::comm::peer
