// StepProposer: this rank's side of a step's agreement: its proposal, and the plan that comes back.
#pragma once

#include <cstdint>

#include "lockstep/comm/step_agreement.hpp"
#include "lockstep/comm/step_plan.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace lockstep::scheduler {

/// At most one proposal is under way: made by `propose`, ended by `await_plan`.
/// Ownership  borrows the engine's parts and options.      Threads  the engine's.      Cost  no allocation once warm.
class StepProposer {
 public:
  StepProposer(const EngineOptions& options, const EngineParts& parts, std::uint64_t config_hash);

  /// The group's first exchange. Errors  as StepAgreement::handshake.
  [[nodiscard]] Status handshake();
  /// Starts the agreement; fills in the guards and what was waited in the one before. Collective, and announced to the observer.
  [[nodiscard]] Status propose(comm::StepProposal proposal);
  /// The last proposal was made out of a sleep: who waits then waits for others to wake, and nobody is late.
  void came_out_of_sleep() { out_of_sleep_ = true; }
  [[nodiscard]] bool is_proposed() const { return proposed_; }
  /// Ends the agreement. Shows the rank as one that waits for the others: its own part is on its way.
  /// Errors  those of the communicator; kDiverged from decide(), or for a plan that does not fit this engine. The message names the step.
  [[nodiscard]] Status await_plan(comm::StepPlan& plan);

  /// When the last plan had come.
  [[nodiscard]] TimePoint agreed() const { return agreed_; }
  /// When this rank began to do nothing but wait for it.
  [[nodiscard]] TimePoint waited_from() const { return waited_from_; }
  /// Of the last agreement: for how long this rank did nothing but wait for it.
  [[nodiscard]] Duration waited() const { return agreed_ - waited_from_; }
  /// Of the last agreement: what it took of the step thread, waiting included.
  [[nodiscard]] Duration time_spent() const { return time_spent_; }
  /// Adds what it took elsewhere: tests under a step.
  void add_time(Duration time) { time_spent_ += time; }
  /// What the step executor tests between stages.
  [[nodiscard]] comm::StepAgreement& agreement() { return agreement_; }

 private:
  /// What decide() cannot know: that the plan fits this engine's buffers. Options are equal on all members, so one beyond them has a bug of its own.
  [[nodiscard]] Status check(const comm::StepPlan& plan) const;
  [[nodiscard]] Error in_agreement(Error error) const;
  [[nodiscard]] Deadline deadline() const;

  const EngineOptions& options_;
  const EngineParts& parts_;
  const std::uint64_t config_hash_;
  comm::StepAgreement agreement_;
  std::int64_t step_ = 0;    ///< of the last proposal
  std::int32_t tokens_ = 0;  ///< of the last proposal
  bool proposed_ = false;
  bool out_of_sleep_ = false;   ///< of the last proposal
  std::int32_t waited_us_ = 0;  ///< of the last plan; 0 out of a sleep
  TimePoint agreed_{};
  TimePoint waited_from_{};
  Duration time_spent_{};
};

}  // namespace lockstep::scheduler
