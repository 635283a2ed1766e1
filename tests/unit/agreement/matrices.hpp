// Matrices as the all-reduce would sum them, for tests of decide().
#pragma once

#include <cstdint>
#include <vector>

#include "lockstep/comm/step_plan.hpp"

namespace lockstep::comm::testing {

inline std::vector<std::int32_t> sum_of_columns(const std::vector<StepProposal>& proposals) {
  const auto members = static_cast<int>(proposals.size());
  std::vector<std::int32_t> sum(kStepFieldCount * proposals.size(), 0);
  std::vector<std::int32_t> one(sum.size());
  for (int member = 0; member < members; ++member) {
    encode_proposal(proposals[static_cast<std::size_t>(member)], member, members, one);
    for (std::size_t i = 0; i < sum.size(); ++i) {
      sum[i] += one[i];
    }
  }
  return sum;
}

inline Status decide_for(const std::vector<StepProposal>& proposals, StepPlan& plan) {
  return decide(sum_of_columns(proposals), static_cast<int>(proposals.size()), plan);
}

inline std::size_t cell(StepField field, std::size_t member, std::size_t members) {
  return static_cast<std::size_t>(field) * members + member;
}

}  // namespace lockstep::comm::testing
