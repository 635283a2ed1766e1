// Goal: decide() gives a plan or names a difference, for every matrix; plans keep what the engine relies on.
// Method: the first byte is the number of members, the second the way: raw words as the matrix, or raw words as proposals, encoded (so that checksums hold) and
// then damaged in as many cells as the input says.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "lockstep/comm/step_plan.hpp"
#include "lockstep/core/check.hpp"

namespace {

using namespace lockstep;
using namespace lockstep::comm;

/// Words from the input; zeros when it has run out.
class Words {
 public:
  explicit Words(std::span<const std::uint8_t> input) : rest_(input) {}
  template <typename T>
  T next() {
    T value{};
    const std::size_t size = std::min(sizeof(T), rest_.size());
    std::memcpy(&value, rest_.data(), size);
    rest_ = rest_.subspan(size);
    return value;
  }
  [[nodiscard]] bool empty() const { return rest_.empty(); }

 private:
  std::span<const std::uint8_t> rest_;
};

/// A proposal of a sound member of a group in which only what may differ does; the input chooses the rest.
StepProposal next_proposal(Words& words) {
  StepProposal proposal;
  proposal.tokens = words.next<std::uint16_t>();
  proposal.prefill_tokens = proposal.tokens == 0 ? 0 : words.next<std::uint16_t>() % (proposal.tokens + 1);
  proposal.requests = proposal.tokens == 0 ? 0 : 1 + words.next<std::uint16_t>() % proposal.tokens;
  proposal.padded_tokens = proposal.tokens + words.next<std::uint8_t>();
  proposal.micro_batches = 1 + words.next<std::uint8_t>() % 2;
  proposal.waiting = words.next<std::uint16_t>();
  proposal.free_kv_blocks = words.next<std::uint16_t>();
  proposal.wish = static_cast<ControlWish>(words.next<std::uint8_t>() % 3);
  proposal.used_kv_blocks = words.next<std::uint16_t>();
  proposal.waited_us = words.next<std::int32_t>() & std::numeric_limits<std::int32_t>::max();
  return proposal;
}

std::vector<std::int32_t> matrix_of_proposals(Words& words, int members) {
  std::vector<std::int32_t> sum(kStepFieldCount * static_cast<std::size_t>(members));
  std::vector<std::int32_t> column(sum.size());
  for (int member = 0; member < members; ++member) {
    encode_proposal(next_proposal(words), member, members, column);
    std::ranges::transform(sum, column, sum.begin(),
                           [](std::int32_t a, std::int32_t b) { return static_cast<std::int32_t>(std::uint32_t(a) + std::uint32_t(b)); });
  }
  while (!words.empty()) {
    const std::size_t cell = words.next<std::uint16_t>() % sum.size();
    sum[cell] = words.next<std::int32_t>();
  }
  return sum;
}

void check_plan(const StepPlan& plan, std::size_t members) {
  LOCKSTEP_CHECK(plan.tokens_per_member.size() == members, "{} members", plan.tokens_per_member.size());
  const std::int32_t longest = *std::ranges::max_element(plan.tokens_per_member);
  LOCKSTEP_CHECK(*std::ranges::min_element(plan.tokens_per_member) >= 0, "negative tokens");
  LOCKSTEP_CHECK((plan.action == StepAction::kRun) <= (longest > 0), "runs {} rows", longest);
  LOCKSTEP_CHECK(plan.micro_batches >= 1 && std::int64_t{plan.micro_batches} * plan.micro_batch_tokens >= longest, "{} micro-batches of {} tokens for {}",
                 plan.micro_batches, plan.micro_batch_tokens, longest);
  LOCKSTEP_CHECK(plan.padded_tokens >= longest && plan.waiting_total >= 0 && plan.prefill_tokens_total >= 0, "totals");
  LOCKSTEP_CHECK(plan.kv_balance > 0 && plan.kv_balance <= 1, "balance {}", plan.kv_balance);
  LOCKSTEP_CHECK(plan.late_member >= -1 && plan.late_member < static_cast<int>(members), "late member {} of {}", plan.late_member, members);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Words words(std::span(data, size));
  const int members = 1 + words.next<std::uint8_t>() % 64;
  std::vector<std::int32_t> matrix;
  if (words.next<std::uint8_t>() % 2 == 0) {
    matrix = matrix_of_proposals(words, members);
  } else {
    matrix.resize(kStepFieldCount * static_cast<std::size_t>(members));
    std::ranges::generate(matrix, [&] { return words.next<std::int32_t>(); });
  }
  StepPlan plan;
  const Status status = decide(matrix, members, plan);
  StepPlan again;
  const Status second = decide(matrix, members, again);
  LOCKSTEP_CHECK(status.has_value() == second.has_value(), "decided twice, differently");
  if (!status) {
    LOCKSTEP_CHECK(status.error().code == ErrorCode::kDiverged && status.error().message == second.error().message, "{}", status.error().message);
    return 0;
  }
  LOCKSTEP_CHECK(plan.step == again.step && plan.tokens_per_member == again.tokens_per_member, "decided twice, differently");
  check_plan(plan, static_cast<std::size_t>(members));
  return 0;
}
