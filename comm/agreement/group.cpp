#include "lockstep/comm/group.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"

namespace lockstep::comm {

GroupView GroupView::initial(int size, int my_index) {
  LOCKSTEP_CHECK(size >= 1 && my_index >= 0 && my_index < size, "member {} of {}", my_index, size);
  GroupView view;
  view.members.resize(static_cast<std::size_t>(size));
  std::iota(view.members.begin(), view.members.end(), 0);
  view.my_index = my_index;
  return view;
}

Status ParallelLayout::validate(int world_size) const {
  if (tp != 1) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("tensor parallel size is {}, but only 1 is supported: leave it at 1", tp)};
  }
  if (dp != world_size) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("data parallel size is {}, expected the world size {}: start {} ranks, or leave the size to the launcher", dp, world_size, dp)};
  }
  if (ep != world_size) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("expert parallel size is {}, expected the world size {}: experts are spread over all ranks", ep, world_size)};
  }
  return {};
}

Placement Placement::contiguous(int expert_count, const GroupView& view) {
  LOCKSTEP_CHECK(expert_count >= 0 && view.size() >= 1, "{} experts over {} members", expert_count, view.size());
  Placement placement;
  placement.holders_.reserve(static_cast<std::size_t>(expert_count));
  placement.experts_of_.resize(view.members.size());
  const int members = view.size();
  for (int member = 0; member < members; ++member) {
    const int count = expert_count / members + (member < expert_count % members ? 1 : 0);
    auto& experts = placement.experts_of_[static_cast<std::size_t>(member)];
    for (int i = 0; i < count; ++i) {
      experts.push_back(static_cast<std::int32_t>(placement.holders_.size()));
      placement.holders_.push_back({member});
    }
  }
  return placement;
}

std::int32_t Placement::serving_member(int expert, int source) const {
  const auto members = holders(expert);
  // Sources are dealt over the holders in turn: both ends of an exchange know (expert, source), so both come to the same holder without asking.
  return members[static_cast<std::size_t>(source) % members.size()];
}

std::int32_t Placement::local_index(int expert, int member_index) const {
  const auto experts = experts_of(member_index);
  const auto found = std::ranges::lower_bound(experts, expert);
  return found != experts.end() && *found == expert ? static_cast<std::int32_t>(found - experts.begin()) : -1;
}

}  // namespace lockstep::comm
