// Goal    Where the device samples, an engine gives the tokens that it gives where the host does, and nothing but these comes back: 4 bytes a token, one wait a
//         step.
// Method  Engines on the simulated runtime. A request with log probabilities is sampled by the host, the same one without by the device. What comes to the host
//         is counted by the simulated runtime.
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/cuda_sim/step_fixture.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::tests {
namespace {

using scheduler::GenerationRequest;

constexpr int kRequests = 8;
constexpr std::int32_t kTokens = 6;

std::uint64_t downloaded_bytes() {
  return hook<std::uint64_t()>("cuda_sim_downloaded_bytes")();
}

/// Without log probabilities; no two are sampled alike.
GenerationRequest request(int index) {
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < 3 + index * 5; ++i) {
    prompt.push_back(3 + (i * 31 + index * 7) % 90);
  }
  GenerationRequest made = greedy_request(static_cast<scheduler::RequestId>(index + 1), std::move(prompt), kTokens);
  made.ignore_eos = true;
  made.sampling.log_probabilities = -1;
  if (index == 1) {
    made.sampling.repetition_penalty = 1.3F;  // greedy
  } else if (index > 1) {
    made.sampling.temperature = 0.7F + 0.1F * static_cast<float>(index);
    made.sampling.top_k = index % 2 == 0 ? 20 : 0;
    made.sampling.top_p = index % 3 == 0 ? 0.9F : 1.0F;
    made.sampling.min_p = index == 5 ? 0.02F : 0.0F;
    made.sampling.frequency_penalty = index == 6 ? 0.5F : 0.0F;
    made.sampling.seed = static_cast<std::uint64_t>(index) * 77;
  }
  if (index == 7) {
    made.sampling.logit_bias = {{5, 2.0F}, {9, -100.0F}};
    made.stop_token_ids = {11, 12};
    made.min_tokens = kTokens;
  }
  return made;
}

/// Nothing but what is sampled from comes to the host of this one.
model::ModelConfig without_experts() {
  model::ModelConfig config = test_config();
  config.layer_is_sparse = {0, 0, 0};
  return config;
}

GroupOptions group_options(const model::ModelConfig& config, int world_size, std::int32_t micro_batches) {
  scheduler::EngineOptions options;
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = 24;  // the longer prompts come in chunks
  options.kv_cache_bytes = std::int64_t{4} << 20U;
  options.micro_batches = micro_batches;
  options.stall_timeout = std::chrono::seconds(200);
  return {.world_size = world_size, .config = config, .make_weights = [] { return model::make_dummy_weights(9); }, .engine = options};
}

/// The tokens of all requests at the same time, spread over the ranks; `host_samples(index)` says whose tokens the host chooses.
template <typename HostSamples>
std::vector<std::vector<std::int32_t>> tokens_of(GroupHarness& group, int world_size, const HostSamples& host_samples, int first_id = 0) {
  for (int index = 0; index < kRequests; ++index) {
    GenerationRequest one = request(index);
    one.id += static_cast<scheduler::RequestId>(first_id);
    one.sampling.log_probabilities = host_samples(index) ? 0 : -1;
    const Status accepted = group.submit(index % world_size, one);
    EXPECT_TRUE(accepted) << (accepted ? "" : accepted.error().message);
  }
  std::vector<std::vector<std::int32_t>> tokens;
  for (int index = 0; index < kRequests; ++index) {
    tokens.push_back(group.wait(static_cast<scheduler::RequestId>(first_id + index + 1)).tokens);
    EXPECT_EQ(tokens.back().size(), static_cast<std::size_t>(kTokens)) << index;
  }
  return tokens;
}

/// Steps with work so far. The last one is counted after its tokens are delivered, and then nothing runs.
std::int64_t steps_when_idle(GroupHarness& group) {
  while (group.counters(0).queue.running > 0) {
    std::this_thread::yield();
  }
  return group.counters(0).running_steps;
}

constexpr auto kHost = [](int) { return true; };
constexpr auto kDevice = [](int) { return false; };
constexpr auto kMixed = [](int index) { return index % 3 == 1; };

class SamplingEngine : public ::testing::TestWithParam<std::pair<int, std::int32_t>> {};

TEST_P(SamplingEngine, TokensAreTheSameWhoeverChoosesThem) {
  const auto [world_size, micro_batches] = GetParam();
  GroupHarness group(group_options(test_config(), world_size, micro_batches));
  group.wait_until_running();
  const auto expected = tokens_of(group, world_size, kHost);
  EXPECT_EQ(tokens_of(group, world_size, kDevice, 100), expected);
  EXPECT_EQ(tokens_of(group, world_size, kMixed, 200), expected) << "rows of both kinds in one step";
}

INSTANTIATE_TEST_SUITE_P(RanksAndMicroBatches, SamplingEngine, ::testing::Values(std::pair{1, 1}, std::pair{1, 2}, std::pair{2, 1}));

TEST(SamplingEngineCopies, OnlyTokensComeBackAndTheHostWaitsOnceAStep) {
  const model::ModelConfig config = without_experts();
  GroupHarness group(group_options(config, 1, 1));
  group.wait_until_running();
  set_schedule(kLate);           // nothing is done before it is waited for
  tokens_of(group, 1, kDevice);  // staging has grown
  constexpr std::uint64_t kTokensOfAll = kRequests * kTokens;

  const std::int64_t steps = steps_when_idle(group);
  const std::uint64_t waits = host_waits();
  std::uint64_t bytes = downloaded_bytes();
  tokens_of(group, 1, kDevice, 100);
  EXPECT_EQ(downloaded_bytes() - bytes, kTokensOfAll * sizeof(std::int32_t));
  const std::int64_t steps_taken = steps_when_idle(group) - steps;
  EXPECT_GE(steps_taken, kTokens);
  EXPECT_EQ(host_waits() - waits, static_cast<std::uint64_t>(steps_taken));

  bytes = downloaded_bytes();
  tokens_of(group, 1, kHost, 200);
  EXPECT_EQ(downloaded_bytes() - bytes, kTokensOfAll * static_cast<std::uint64_t>(config.vocabulary_size) * sizeof(float)) << "logits, where they are wanted";
}

}  // namespace
}  // namespace lockstep::tests
