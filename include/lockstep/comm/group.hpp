// GroupView, Placement and ParallelLayout: who is in the group, and who holds which expert.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lockstep/core/result.hpp"

namespace lockstep::comm {

/// The members of one epoch. Passed into each step: nothing may keep a world size of its own.      Threads  a value.
struct GroupView {
  std::int32_t epoch = 0;
  std::vector<std::int32_t> members;  ///< stable ids (ranks at launch), ascending; a member's index is its position here
  std::int32_t my_index = 0;

  [[nodiscard]] int size() const { return static_cast<int>(members.size()); }
  [[nodiscard]] std::int32_t my_id() const { return members[static_cast<std::size_t>(my_index)]; }
  /// Ids 0 .. size - 1 at epoch 0.
  static GroupView initial(int size, int my_index);
};

/// How the model is spread. tp is 1 until tensor parallelism exists.
struct ParallelLayout {
  int dp = 1;
  int ep = 1;
  int tp = 1;
  /// Errors  kInvalidArgument unless dp == ep == world size and tp == 1.
  [[nodiscard]] Status validate(int world_size) const;
};

/// Which members hold which expert, for one epoch. Experts are dealt in contiguous runs, the remainder to the first members; with more members than experts the
/// last hold none. Replicas are allowed by the form (`holders`), not made yet.      Threads  immutable after make.
class Placement {
 public:
  [[nodiscard]] static Placement contiguous(int expert_count, const GroupView& view);
  [[nodiscard]] int expert_count() const { return static_cast<int>(holders_.size()); }
  /// Member indices that hold `expert`, ascending, at least one.
  [[nodiscard]] std::span<const std::int32_t> holders(int expert) const { return holders_[static_cast<std::size_t>(expert)]; }
  /// The member that computes `expert` for rows of member `source`: the only holder now; with replicas, a rule over these two alone.
  [[nodiscard]] std::int32_t serving_member(int expert, int source) const;
  /// Experts of one member, ascending.
  [[nodiscard]] std::span<const std::int32_t> experts_of(int member_index) const { return experts_of_[static_cast<std::size_t>(member_index)]; }
  /// Position of `expert` in experts_of(member_index); -1 when it is not held there.
  [[nodiscard]] std::int32_t local_index(int expert, int member_index) const;

 private:
  std::vector<std::vector<std::int32_t>> holders_;
  std::vector<std::vector<std::int32_t>> experts_of_;
};

}  // namespace lockstep::comm
