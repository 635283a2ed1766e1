// What a step agreement costs a rank besides the all-reduce, as the group grows: the real encode_proposal() and decide() over the matrix of simulated ranks.
// Prints one JSON object a group size. Ranks differ in their work and half are idle, so that no branch always goes one way.
#include <algorithm>
#include <cstdint>
#include <vector>

#include <fmt/format.h>

#include "lockstep/comm/step_plan.hpp"
#include "lockstep/core/check.hpp"
#include "lockstep/core/deadline.hpp"

namespace {

using namespace lockstep;

constexpr int kMembersMax = 4096;
constexpr int kRounds = 41;
constexpr int kWordsPerRound = 1 << 20;  ///< matrix words that a round looks at: small groups are called more often

comm::StepProposal proposal_of(int member) {
  const bool busy = member % 2 == 0;
  return {.step = (std::int64_t{1} << 33) + 5,
          .config_hash = 0x0123456789abcdefU,
          .tokens = busy ? member % 97 + 1 : 0,
          .prefill_tokens = busy ? member % 97 / 2 : 0,
          .requests = busy ? 1 : 0,
          .padded_tokens = 128,
          .micro_batches = member % 3 + 1,
          .waiting = member % 5,
          .free_kv_blocks = member,
          .used_kv_blocks = kMembersMax - member,
          .waited_us = member % 7};
}

double microseconds(Duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void measure(int members) {
  const std::size_t words = comm::kStepFieldCount * static_cast<std::size_t>(members);
  std::vector<std::int32_t> matrix(words);
  std::vector<std::int32_t> column(words);
  for (int member = 0; member < members; ++member) {
    comm::encode_proposal(proposal_of(member), member, members, column);
    std::ranges::transform(matrix, column, matrix.begin(), std::plus<>());  // what the all-reduce does
  }
  comm::StepPlan plan;
  const int calls = std::max<int>(1, kWordsPerRound / static_cast<int>(words));
  std::vector<double> decide_us;
  std::vector<double> encode_us;
  for (int round = 0; round < kRounds; ++round) {
    const TimePoint begin = SteadyClock::instance().now();
    for (int call = 0; call < calls; ++call) {
      const Status status = comm::decide(matrix, members, plan);
      LOCKSTEP_CHECK(status.has_value(), "{} members: a sound matrix was refused", members);
    }
    const TimePoint between = SteadyClock::instance().now();
    for (int call = 0; call < calls; ++call) {
      comm::encode_proposal(proposal_of(call % members), call % members, members, column);
    }
    decide_us.push_back(microseconds(between - begin) / calls);
    encode_us.push_back(microseconds(SteadyClock::instance().now() - between) / calls);
  }
  LOCKSTEP_CHECK(plan.action == comm::StepAction::kRun && plan.micro_batches == 1, "{} members: an unexpected plan", members);
  fmt::print("{{\"ranks\": {}, \"decide_us\": {:.4f}, \"encode_us\": {:.4f}, \"matrix_bytes\": {}}}\n", members, median(decide_us), median(encode_us),
             words * sizeof(std::int32_t));
}

}  // namespace

int main() {
  for (int members = 2; members <= kMembersMax; members *= 2) {
    measure(members);
  }
  return 0;
}
