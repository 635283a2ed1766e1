// StepAgreement: the one all-reduce per step, from proposal to plan.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/comm/step_plan.hpp"

namespace lockstep::comm {

/// What `handshake` compares before anything whose size depends on a version. kProtocolVersion changes with every change of a wire format.
inline constexpr std::int32_t kProtocolMagic = 0x4C4F434B;  // "LOCK"
inline constexpr std::int32_t kProtocolVersion = 3;

/// Ownership  borrows the communicator; both belong to the engine.      Threads  the engine's.
class StepAgreement {
 public:
  StepAgreement(Communicator& communicator, const GroupView& view);
  /// The very first exchange: a fixed size for all versions, so that different ones refuse each other instead of truncating.
  /// Errors  kDiverged naming the member, the field, its value and ours; those of `wait`.
  [[nodiscard]] Status handshake(std::uint64_t config_hash, std::int32_t protocol_version, const Deadline& deadline);
  [[nodiscard]] Status start(const StepProposal& proposal);
  /// Something is started and, when last tested, was not complete.
  [[nodiscard]] bool is_under_way() const { return under_way_; }
  /// Lets the library move on what is under way: some do so in calls only. Errors are left to `finish`.      Cost  a poll.
  void test();
  /// Fills `plan`.      Errors  kDiverged from `decide`; kTimeout, kPeerLost, kCancelled from the communicator.
  [[nodiscard]] Status finish(StepPlan& plan, const Deadline& deadline);

 private:
  Communicator& communicator_;
  int member_index_;
  int member_count_;
  std::vector<std::int32_t> outgoing_;
  std::vector<std::int32_t> matrix_;
  Ticket ticket_{};
  bool under_way_ = false;
};

}  // namespace lockstep::comm
