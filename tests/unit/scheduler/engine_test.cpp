// Goal    What an engine tells its observer and how it refuses: collectives, divergences by field, options that cannot be, plans that no sound member makes,
//         and that a step allocates nothing once warm.
// Method  Whole engines on the host device over LocalGroup, with dummy weights; one thing at a time is made wrong.
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/comm/step_plan.hpp"
#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::scheduler {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using tests::greedy_request;
using tests::GroupHarness;
using tests::GroupOptions;

GroupOptions group_of(int world_size) {
  EngineOptions engine;
  engine.max_num_seqs = 4;
  engine.max_num_batched_tokens = 16;
  engine.kv_cache_bytes = 1 << 20;
  engine.stall_timeout = std::chrono::seconds(200);
  return {.world_size = world_size, .config = tests::small_config(), .make_weights = [] { return model::make_dummy_weights(5); }, .engine = engine};
}

/// Rewrites this rank's proposals, with a right checksum, as a member with a bug of its own would send them.
class Forging final : public comm::Communicator {
 public:
  using Forge = std::function<void(comm::StepProposal& proposal)>;
  Forging(std::unique_ptr<comm::Communicator> inner, Forge forge) : inner_(std::move(inner)), forge_(std::move(forge)) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  Result<comm::Ticket> start_all_reduce(std::span<const std::int32_t> values, comm::ReduceOp op) override {
    const auto members = static_cast<std::size_t>(size());
    if (values.size() != comm::kStepFieldCount * members) {
      return inner_->start_all_reduce(values, op);  // the handshake
    }
    const auto word = [&](comm::StepField field) { return values[static_cast<std::size_t>(field) * members + static_cast<std::size_t>(rank())]; };
    const auto wide = [&](comm::StepField low, comm::StepField high) {
      return std::uint64_t{static_cast<std::uint32_t>(word(high))} << 32U | static_cast<std::uint32_t>(word(low));
    };
    comm::StepProposal proposal{.step = static_cast<std::int64_t>(wide(comm::StepField::kStepLow, comm::StepField::kStepHigh)),
                                .epoch = word(comm::StepField::kEpoch),
                                .config_hash = wide(comm::StepField::kConfigHashLow, comm::StepField::kConfigHashHigh),
                                .tokens = word(comm::StepField::kTokens),
                                .prefill_tokens = word(comm::StepField::kPrefillTokens),
                                .requests = word(comm::StepField::kRequests),
                                .padded_tokens = word(comm::StepField::kPaddedTokens),
                                .micro_batches = word(comm::StepField::kMicroBatches),
                                .graph_mode = static_cast<GraphMode>(word(comm::StepField::kGraphMode)),
                                .waiting = word(comm::StepField::kWaiting),
                                .free_kv_blocks = word(comm::StepField::kFreeKvBlocks),
                                .used_kv_blocks = word(comm::StepField::kUsedKvBlocks),
                                .waited_us = word(comm::StepField::kWaitedUs),
                                .wish = static_cast<comm::ControlWish>(word(comm::StepField::kWish))};
    forge_(proposal);
    std::vector<std::int32_t> forged(values.size());
    comm::encode_proposal(proposal, rank(), size(), forged);
    return inner_->start_all_reduce(forged, op);
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
  Forge forge_;
};

/// One engine alone, with a sink and an observer that keep what they are told.
struct Alone final : OutputSink, StepObserver {
  explicit Alone(const EngineOptions& options, model::ModelConfig model_config = tests::small_config()) : config(std::move(model_config)) {
    device = std::move(*device::make_device("cpu", {}));
    communicator = comm::LocalGroup(1).communicator(0);
    weights = model::make_dummy_weights(5);
    engine = Engine::create(options, {.config = &config,
                                      .weights = weights.get(),
                                      .device = device.get(),
                                      .communicator = communicator.get(),
                                      .view = comm::GroupView::initial(1, 0),
                                      .progress = &progress,
                                      .sink = this,
                                      .observer = this});
  }
  void deliver(std::span<const TokenEvent> events) override {
    for (const TokenEvent& event : events) {
      if (event.finish) {
        finished.push_back(*event.finish);
        errors.push_back(event.error == nullptr ? "" : event.error->message);
      }
    }
  }
  void on_divergence(std::string_view field) override { diverged_fields.emplace_back(field); }

  model::ModelConfig config;
  std::unique_ptr<device::Device> device;
  std::unique_ptr<comm::Communicator> communicator;
  std::unique_ptr<model::WeightSource> weights;
  comm::StepProgress progress;
  Result<std::unique_ptr<Engine>> engine = Error{ErrorCode::kInternal, "not made yet"};
  std::vector<FinishReason> finished;
  std::vector<std::string> errors;
  std::vector<std::string> diverged_fields;
};

TEST(Engine, EveryCollectiveOfAStepIsToldToTheObserver) {
  for (const std::int32_t micro_batches : {1, 2}) {
    GroupOptions options = group_of(2);
    options.engine.micro_batches = micro_batches;
    GroupHarness group(std::move(options));
    group.wait_until_running();
    ASSERT_TRUE(group.submit(0, greedy_request(1, {4, 5, 6, 7}, 12)));
    group.wait(1);
    group.drain(0);
    for (const Status& status : group.join()) {
      ASSERT_TRUE(status) << status.error().message;
    }
    const tests::RankCounters counters = group.counters(0);
    // Dispatch and combine in each of two sparse layers, for each micro-batch; a step of one row is not split.
    const std::int64_t split = micro_batches == 2 ? 1 : 0;
    EXPECT_EQ(static_cast<std::int64_t>(counters.collectives), counters.steps + 4 * counters.running_steps + 4 * split);
    EXPECT_EQ(counters.collective_hash, group.counters(1).collective_hash);
  }
}

TEST(Engine, AWakeForAStepThatWasNeverAgreedEndsEverythingAndNamesTheField) {
  Alone alone({.max_num_seqs = 2, .max_num_batched_tokens = 8, .kv_cache_bytes = 1 << 20});
  ASSERT_TRUE(alone.engine);
  Engine& engine = **alone.engine;
  ASSERT_TRUE(engine.load());
  ASSERT_TRUE(engine.submit(greedy_request(1, {3}, 4)));
  engine.on_wake(0, 0, 99);
  const Status status = engine.run();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
  EXPECT_THAT(alone.diverged_fields, ::testing::ElementsAre("wake"));
  EXPECT_THAT(alone.finished, ::testing::ElementsAre(FinishReason::kRankLost));
  EXPECT_EQ(engine.submit(greedy_request(2, {3}, 4)).error().code, ErrorCode::kCancelled);
}

TEST(Engine, APlanThatNoSoundMemberMakesStopsAllRanksAndNamesTheField) {
  struct Forgery {
    std::string message;
    Forging::Forge forge;
  };
  const std::vector<Forgery> forgeries{
      {"micro_batches of the members with rows is 7", [](comm::StepProposal& proposal) { proposal.micro_batches = proposal.tokens > 0 ? 7 : 1; }},
      {"tokens of member 1 is 17", [](comm::StepProposal& proposal) { proposal.tokens = proposal.tokens > 0 ? 17 : 0; }},
  };
  for (const Forgery& forgery : forgeries) {
    SCOPED_TRACE(forgery.message);
    GroupOptions options = group_of(2);
    options.wrap = [&forgery](int rank, std::unique_ptr<comm::Communicator> inner) -> std::unique_ptr<comm::Communicator> {
      return rank == 1 ? std::make_unique<Forging>(std::move(inner), forgery.forge) : std::move(inner);
    };
    GroupHarness group(std::move(options));
    group.wait_until_running();
    ASSERT_TRUE(group.submit(1, greedy_request(1, {4, 5, 6, 7, 8, 9, 10, 11}, 50)));
    const std::vector<Status> statuses = group.join();
    for (const Status& status : statuses) {
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
      EXPECT_THAT(status.error().message, ::testing::StartsWith(forgery.message));
    }
    EXPECT_EQ(group.steps(0), group.steps(1)) << "in the same step";
    EXPECT_EQ(group.wait(1).finish, FinishReason::kRankLost);
  }
}

TEST(Engine, TheObserverIsToldWhoIsLateWhyStepsAreSplitAndHowEvenTheKvCachesAre) {
  GroupOptions options = group_of(2);
  options.engine.micro_batches = 2;
  options.wrap = [](int rank, std::unique_ptr<comm::Communicator> inner) -> std::unique_ptr<comm::Communicator> {
    if (rank != 1) {
      return inner;
    }
    // Rank 1 has always waited for a thousand seconds: whatever rank 0 took, it came last.
    return std::make_unique<Forging>(std::move(inner), [](comm::StepProposal& proposal) { proposal.waited_us = 1'000'000'000; });
  };
  GroupHarness group(std::move(options));
  group.wait_until_running();
  ASSERT_TRUE(group.submit(0, greedy_request(1, {4, 5, 6, 7}, 12)));
  group.wait(1);
  group.drain(0);
  for (const Status& status : group.join()) {
    ASSERT_TRUE(status) << status.error().message;
  }
  for (const int rank : {0, 1}) {
    const tests::RankCounters counters = group.counters(rank);
    EXPECT_EQ(counters.late_steps, (std::map<int, std::int64_t>{{0, counters.steps}})) << "rank " << rank;
    // The prompt's step is split as the option says; those of one row are not.
    EXPECT_EQ(counters.micro_batch_steps.at(MicroBatchReason::kOption), 1);
    EXPECT_EQ(counters.micro_batch_steps.at(MicroBatchReason::kFewRows), counters.running_steps - 1);
    EXPECT_EQ(counters.kv_balance_min, 0.5) << "rank 0 alone has blocks in use";
  }
}

TEST(Engine, AFailedCollectiveIsNamedOnceWithItsStepLayerAndMicroBatch) {
  for (const std::string_view failing : {"start_all_to_all", "wait_all_to_all"}) {
    GroupOptions options = group_of(1);
    options.hooks.before = [failing](int, std::string_view operation) {
      return operation == failing ? Status(Error{ErrorCode::kPeerLost, "the wire was cut", 0}) : Status{};
    };
    GroupHarness group(std::move(options));
    group.wait_until_running();
    ASSERT_TRUE(group.submit(0, greedy_request(1, {4, 5, 6}, 5)));
    const Status status = group.join().front();
    ASSERT_FALSE(status) << failing;
    EXPECT_EQ(status.error().code, ErrorCode::kPeerLost);
    EXPECT_THAT(status.error().message, AllOf(HasSubstr("dispatch"), HasSubstr("step 0"), HasSubstr("layer 0"), HasSubstr("the wire was cut")));
    EXPECT_EQ(status.error().message.find("step"), status.error().message.rfind("step")) << status.error().message;
    const tests::Completion completion = group.wait(1);
    EXPECT_EQ(completion.finish, FinishReason::kRankLost);
    EXPECT_EQ(completion.error, status.error().message);
  }
}

TEST(Engine, RefusesOptionsThatCannotBe) {
  const EngineOptions good{.max_num_seqs = 2, .max_num_batched_tokens = 8, .kv_cache_bytes = 1 << 20};
  EXPECT_TRUE(Alone(good).engine);
  struct Bad {
    std::string name;
    std::function<void(EngineOptions& options)> change;
  };
  const std::vector<Bad> bad{{"--max-num-seqs", [](EngineOptions& options) { options.max_num_seqs = 0; }},
                             {"--max-num-batched-tokens", [](EngineOptions& options) { options.max_num_batched_tokens = 0; }},
                             {"--max-num-batched-tokens", [](EngineOptions& options) { options.max_num_batched_tokens = 2'000'000'000; }},
                             {"--max-pending", [](EngineOptions& options) { options.max_pending = 0; }},
                             {"--max-model-len", [](EngineOptions& options) { options.max_model_len = -1; }},
                             {"--max-model-len", [](EngineOptions& options) { options.max_model_len = 257; }},
                             {"--micro-batches", [](EngineOptions& options) { options.micro_batches = 0; }},
                             {"--micro-batches", [](EngineOptions& options) { options.micro_batches = 3; }},
                             {"--micro-batches", [](EngineOptions& options) { options.micro_batches_auto = true; }},
                             {"--gather-rows", [](EngineOptions& options) { options.gather_rows = -1; }}};
  for (const Bad& each : bad) {
    EngineOptions options = good;
    each.change(options);
    const Alone alone(options);
    ASSERT_FALSE(alone.engine) << each.name;
    EXPECT_EQ(alone.engine.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(alone.engine.error().message, HasSubstr(each.name));
  }
}

TEST(Engine, ARequestWhoseLogitsAreNoNumbersEndsWithAnErrorThatSaysSo) {
  Alone alone({.max_num_seqs = 2, .max_num_batched_tokens = 8, .kv_cache_bytes = 1 << 20});
  alone.config.rms_norm_epsilon = std::numeric_limits<float>::quiet_NaN();  // stands for weights that overflow
  ASSERT_TRUE(alone.engine);
  Engine& engine = **alone.engine;
  ASSERT_TRUE(engine.load());
  ASSERT_TRUE(engine.submit(greedy_request(1, {3}, 4)));
  engine.request_drain();
  EXPECT_TRUE(engine.run()) << "one request's trouble, not the engine's";
  EXPECT_THAT(alone.finished, ::testing::ElementsAre(FinishReason::kError));
  EXPECT_THAT(alone.errors, ::testing::ElementsAre(HasSubstr("not numbers")));
  EXPECT_EQ(engine.open_requests(), 0);
}

}  // namespace
}  // namespace lockstep::scheduler
