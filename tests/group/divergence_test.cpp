// Goal: a rank that disagrees stops the whole group within the step, and every rank's error names the field and the ranks.
// Method: one rank of a group gets other options, or its matrix is changed on the way to the all-reduce.
#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::tests {
namespace {

using scheduler::AgreementMode;

GroupOptions divergence_options(int world_size, AgreementMode agreement) {
  scheduler::EngineOptions engine;
  engine.max_num_seqs = 4;
  engine.max_num_batched_tokens = 16;
  engine.kv_cache_bytes = 1 << 20;
  engine.agreement = agreement;
  engine.stall_timeout = std::chrono::seconds(200);
  return {.world_size = world_size, .config = small_config(), .make_weights = [] { return model::make_dummy_weights(5); }, .engine = engine};
}

/// Adds `delta` to one word of its own column from the `nth` agreement on.
class Corrupting final : public comm::Communicator {
 public:
  Corrupting(std::unique_ptr<comm::Communicator> inner, comm::StepField field, std::int32_t delta, int nth)
      : inner_(std::move(inner)), field_(field), delta_(delta), left_(nth) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  Result<comm::Ticket> start_all_reduce(std::span<const std::int32_t> values, comm::ReduceOp op) override {
    std::vector<std::int32_t> copy(values.begin(), values.end());
    const auto members = static_cast<std::size_t>(size());
    if (copy.size() == comm::kStepFieldCount * members && left_-- <= 0) {
      copy[static_cast<std::size_t>(field_) * members + static_cast<std::size_t>(rank())] += delta_;
    }
    return inner_->start_all_reduce(copy, op);
  }
  Result<comm::Ticket> start_all_to_all(const comm::AllToAll& exchange) override { return inner_->start_all_to_all(exchange); }
  Result<bool> test(comm::Ticket ticket) override { return inner_->test(ticket); }
  Status wait(comm::Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) override { return inner_->wait(ticket, result, deadline); }
  Status wait_all_to_all(comm::Ticket ticket, std::span<std::size_t> received, const Deadline& deadline) override {
    return inner_->wait_all_to_all(ticket, received, deadline);
  }
  std::string_view transport() const override { return inner_->transport(); }

 private:
  std::unique_ptr<comm::Communicator> inner_;
  comm::StepField field_;
  std::int32_t delta_;
  int left_;
};

class Divergence : public ::testing::TestWithParam<AgreementMode> {};

TEST_P(Divergence, ARankWithOtherOptionsIsRefusedByAllAtTheHandshake) {
  GroupOptions options = divergence_options(3, GetParam());
  options.adjust = [](int rank, scheduler::EngineOptions& engine) { engine.options_hash = rank == 1 ? 99 : 1; };
  GroupHarness group(std::move(options));
  for (const Status& status : group.join()) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
    EXPECT_NE(status.error().message.find("config_hash"), std::string::npos) << status.error().message;
    EXPECT_NE(status.error().message.find('1'), std::string::npos) << status.error().message;
  }
}

TEST_P(Divergence, EveryGuardFieldStopsAllRanksWithinTheStepNamingFieldAndRank) {
  struct Guard {
    comm::StepField field;
    std::string_view name;
  };
  for (const Guard& guard : {Guard{comm::StepField::kStepLow, "step"}, Guard{comm::StepField::kStepHigh, "step"}, Guard{comm::StepField::kEpoch, "epoch"},
                             Guard{comm::StepField::kConfigHashLow, "config_hash"}, Guard{comm::StepField::kTokens, "checksum"}}) {
    GroupOptions options = divergence_options(3, GetParam());
    options.wrap = [guard](int rank, std::unique_ptr<comm::Communicator> inner) -> std::unique_ptr<comm::Communicator> {
      if (rank != 2) {
        return inner;
      }
      return std::make_unique<Corrupting>(std::move(inner), guard.field, 1, 5);
    };
    GroupHarness group(std::move(options));
    group.wait_until_running();
    ASSERT_TRUE(group.submit(0, greedy_request(1, {4, 5, 6}, 50)));
    const std::vector<Status> statuses = group.join();
    std::vector<std::int64_t> steps;
    for (std::size_t rank = 0; rank < statuses.size(); ++rank) {
      ASSERT_FALSE(statuses[rank]);
      EXPECT_EQ(statuses[rank].error().code, ErrorCode::kDiverged);
      EXPECT_EQ(statuses[rank].error().message.rfind(guard.name, 0), 0U) << statuses[rank].error().message;
      EXPECT_NE(statuses[rank].error().message.find('2'), std::string::npos) << statuses[rank].error().message;
      steps.push_back(group.steps(static_cast<int>(rank)));
    }
    EXPECT_EQ(steps[0], steps[1]);
    EXPECT_EQ(steps[0], steps[2]);
    EXPECT_EQ(group.wait(1).finish, scheduler::FinishReason::kRankLost);
  }
}

TEST(AgreementMode, ARankThatAgreesAheadIsRefusedByOnesThatDoNot) {
  GroupOptions options = divergence_options(2, AgreementMode::kSync);
  options.adjust = [](int rank, scheduler::EngineOptions& engine) { engine.agreement = rank == 1 ? AgreementMode::kPipelined : AgreementMode::kSync; };
  GroupHarness group(std::move(options));
  for (const Status& status : group.join()) {
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("config_hash"), std::string::npos) << status.error().message;
  }
}

TEST(CombineMode, ARankThatSumsIsRefusedByOnesThatDoNot) {
  GroupOptions options = divergence_options(2, AgreementMode::kSync);
  options.adjust = [](int rank, scheduler::EngineOptions& engine) { engine.combine = rank == 1 ? comm::CombineMode::kPerRank : comm::CombineMode::kPerExpert; };
  GroupHarness group(std::move(options));
  for (const Status& status : group.join()) {
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("config_hash"), std::string::npos) << status.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(Agreements, Divergence, ::testing::Values(AgreementMode::kSync, AgreementMode::kPipelined),
                         [](const auto& chosen) { return agreement_name(chosen.param); });

}  // namespace
}  // namespace lockstep::tests
