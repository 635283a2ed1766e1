// Goal: over tens of thousands of steps no rank hangs, all issue the same collectives, and every answer is that of world 1.
// Method: four ranks as threads, steps agreed on one by one and ahead, whole and split; seeded random arrivals at random ranks, cancellations, and gaps: some
// bursts begin while the group is about to fall asleep, some after it has slept, some after it has slept for several keep-alive intervals; seeded random delays
// in every collective call and every wake. The seed is printed and can be given by LOCKSTEP_TEST_SEED.
#include <cstdlib>
#include <optional>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::tests {
namespace {

using scheduler::AgreementMode;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::int64_t kStepTarget = 1000;
#else
constexpr std::int64_t kStepTarget = 25000;  // of each of four runs
#endif
constexpr int kWorldSize = 4;
constexpr int kTemplateCount = 48;

std::uint64_t test_seed() {
  const char* given = std::getenv("LOCKSTEP_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("LOCKSTEP_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

scheduler::EngineOptions soak_options(std::int32_t micro_batches, AgreementMode agreement) {
  scheduler::EngineOptions options;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 24;
  options.kv_cache_bytes = 200 << 10;  // some requests have to wait for blocks
  options.micro_batches = micro_batches;
  options.agreement = agreement;
  options.stall_timeout = std::chrono::seconds(200);
  options.keep_alive_interval = std::chrono::milliseconds(50);
  return options;
}

scheduler::GenerationRequest template_request(int index) {
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < 1 + (index * 11) % 60; ++i) {
    prompt.push_back(2 + (i * 31 + index * 101) % 90);
  }
  scheduler::GenerationRequest request = greedy_request(static_cast<scheduler::RequestId>(index + 1), std::move(prompt), 1 + (index * 5) % 40);
  if (index % 3 != 0) {
    request.sampling = {.temperature = 1.0F, .top_k = 20, .top_p = 0.95F, .seed = static_cast<std::uint64_t>(index)};
  }
  if (index % 2 == 0) {
    request.stop_token_ids = {5, 20, 35, 50, 65, 80, 95};  // many end before max_tokens: nobody can know when
  }
  return request;
}

std::vector<Completion> world_one_answers() {
  GroupHarness group({.world_size = 1,
                      .config = small_config(),
                      .make_weights = [] { return model::make_dummy_weights(3); },
                      .engine = soak_options(1, AgreementMode::kSync)});
  group.wait_until_running();
  std::vector<Completion> answers;
  for (int index = 0; index < kTemplateCount; ++index) {
    const scheduler::GenerationRequest request = template_request(index);
    EXPECT_TRUE(group.submit(0, request));
    answers.push_back(group.wait(request.id));
  }
  return answers;
}

/// Delays of random length, from nothing to a few reschedulings; a generator per thread, since the hook runs on all of them.
class Disturbance {
 public:
  explicit Disturbance(std::uint64_t seed) : seed_(seed) {}
  void operator()(int rank) const {
    thread_local std::mt19937_64 random(seed_ * 31 + static_cast<std::uint64_t>(rank));
    const std::uint64_t roll = random() % 64;
    for (std::uint64_t i = 0; roll < 4 && i < roll * 8; ++i) {
      std::this_thread::yield();
    }
  }

 private:
  std::uint64_t seed_;
};

struct Case {
  std::int32_t micro_batches;
  AgreementMode agreement;
};

class Soak : public ::testing::TestWithParam<Case> {
 protected:
  void start() {
    seed_ = test_seed();
    random_.seed(seed_);
    expected_ = world_one_answers();
    const Disturbance disturb(seed_);
    group_.emplace(GroupOptions{.world_size = kWorldSize,
                                .config = small_config(),
                                .make_weights = [] { return model::make_dummy_weights(3); },
                                .engine = soak_options(GetParam().micro_batches, GetParam().agreement),
                                .hooks = {.before =
                                              [disturb](int rank, std::string_view) {
                                                disturb(rank);
                                                return Status{};
                                              }},
                                .carry_wake =
                                    [disturb](int from, int, const std::function<void()>& deliver) {
                                      disturb(from);
                                      deliver();
                                    }});
    group_->wait_until_running();
  }

  /// One to 24 requests at random ranks, some cancelled at once. When they have ended the group falls asleep: the next burst wakes it from some rank.
  void burst() {
    struct Open {
      scheduler::RequestId id;
      int template_index;
      bool cancelled;
    };
    std::vector<Open> open;
    for (std::uint64_t left = 1 + random_() % 24; left > 0; --left) {
      const int index = static_cast<int>(random_() % kTemplateCount);
      scheduler::GenerationRequest request = template_request(index);
      request.id = next_id_++;
      const int rank = static_cast<int>(random_() % kWorldSize);
      ASSERT_TRUE(group_->submit(rank, request));
      open.push_back({request.id, index, random_() % 16 == 0});
      if (open.back().cancelled) {
        group_->cancel(rank, request.id);
      }
      if (random_() % 4 == 0) {
        group_->wait_for_tokens(request.id, 1);
      }
    }
    for (const Open& request : open) {
      ASSERT_NO_FATAL_FAILURE(check(group_->wait(request.id), expected_[static_cast<std::size_t>(request.template_index)], request.cancelled));
    }
  }

  /// Most often none: the next burst then comes while the ranks are on their way to sleep, each at another point of it.
  void gap() {
    const int rank = static_cast<int>(random_() % kWorldSize);
    if (++bursts_ % 32 == 8) {
      group_->wait_for_sleeps(rank, 5);
    } else if (random_() % 16 == 0) {
      group_->wait_for_sleeps(rank, 1);
    }
  }

  void check(const Completion& found, const Completion& answer, bool cancelled) const {
    if (found.finish == scheduler::FinishReason::kCancelled) {
      ASSERT_TRUE(cancelled) << "seed " << seed_;
      ASSERT_LE(found.tokens.size(), answer.tokens.size()) << "seed " << seed_;
      ASSERT_TRUE(std::equal(found.tokens.begin(), found.tokens.end(), answer.tokens.begin())) << "seed " << seed_;
      return;
    }
    ASSERT_EQ(found.tokens, answer.tokens) << "seed " << seed_;
    ASSERT_EQ(found.log_probabilities, answer.log_probabilities) << "seed " << seed_;
  }

  void drain_and_compare() {
    group_->drain(static_cast<int>(random_() % kWorldSize));
    for (const Status& status : group_->join()) {
      ASSERT_TRUE(status) << status.error().message;
    }
    const RankCounters first = group_->counters(0);
    EXPECT_GT(first.collectives, static_cast<std::uint64_t>(kStepTarget));
    std::int64_t dropped_rows = 0;
    for (int rank = 0; rank < kWorldSize; ++rank) {
      const RankCounters counters = group_->counters(rank);
      EXPECT_EQ(counters.collectives, first.collectives) << "rank " << rank << ", seed " << seed_;
      EXPECT_EQ(counters.collective_hash, first.collective_hash) << "rank " << rank << ", seed " << seed_;
      EXPECT_EQ(counters.queue.kv_blocks_used, 0) << "rank " << rank << ", seed " << seed_;
      EXPECT_EQ(counters.split_steps > 0, GetParam().micro_batches > 1);
      dropped_rows += counters.dropped_rows;
    }
    EXPECT_EQ(dropped_rows > 0, GetParam().agreement == AgreementMode::kPipelined) << "of requests that ended early, seed " << seed_;
  }

  void run() {
    start();
    while (group_->steps(0) < kStepTarget) {
      ASSERT_NO_FATAL_FAILURE(burst());
      gap();
    }
    drain_and_compare();
  }

 private:
  std::uint64_t seed_ = 0;
  std::mt19937_64 random_;
  std::vector<Completion> expected_;
  scheduler::RequestId next_id_ = 1;
  int bursts_ = 0;
  std::optional<GroupHarness> group_;
};

TEST_P(Soak, RandomArrivalsGiveWorldOneAnswersAndEqualCollectives) {
  run();
}

INSTANTIATE_TEST_SUITE_P(Ways, Soak,
                         ::testing::Values(Case{1, AgreementMode::kSync}, Case{2, AgreementMode::kSync}, Case{1, AgreementMode::kPipelined},
                                           Case{2, AgreementMode::kPipelined}),
                         [](const auto& chosen) { return agreement_name(chosen.param.agreement) + (chosen.param.micro_batches == 1 ? "Whole" : "Split"); });

}  // namespace
}  // namespace lockstep::tests
