// Goal: the same request gives the same tokens and float32 log probabilities, bit for bit, whatever happens around it.
// Method: answers of world 1, one request at a time, are the reference; every other way of running the same requests must reproduce them. Counters prove that
// each condition really occurred (split steps, many requests in one step, several chunks, rows that crossed ranks).
#include <bit>

#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"
#include "tests/support/test_device.hpp"

namespace lockstep::tests {
namespace {

using scheduler::AgreementMode;
using scheduler::GenerationRequest;

/// A simulated device is a thousand times slower than a host: fewer and shorter answers of a smaller model there, with the same checks.
bool on_host() {
  return test_device_name() == "cpu";
}
int request_count() {
  return on_host() ? 16 : 8;
}
std::int32_t answer_tokens() {
  return on_host() ? 20 : 8;
}
constexpr std::int32_t kAuto = 0;  ///< micro-batches: some steps are split, some not
constexpr AgreementMode kAhead = AgreementMode::kPipelined;

/// A model, and requests that make it work: prompts of a few tokens up to several KV blocks, greedy and seeded.
struct Subject {
  std::string name;
  model::ModelConfig config;
  std::function<std::unique_ptr<model::WeightSource>()> make_weights;
  std::int32_t longest_prompt = 0;

  [[nodiscard]] GenerationRequest request(int index) const {
    std::vector<std::int32_t> prompt;
    const std::int32_t length = index == 0 ? longest_prompt : 3 + (index * 37) % (longest_prompt - 3);
    for (std::int32_t i = 0; i < length; ++i) {
      prompt.push_back(3 + (i * 131 + index * 7919 + i * i * 17) % (config.vocabulary_size - 3));
    }
    GenerationRequest request = greedy_request(static_cast<scheduler::RequestId>(index + 1), std::move(prompt), answer_tokens());
    request.ignore_eos = true;
    if (index % 2 == 1) {
      request.sampling = {.temperature = 0.9F,
                          .top_k = index % 4 == 1 ? 40 : 0,
                          .top_p = index % 3 == 0 ? 0.9F : 1.0F,
                          .min_p = index % 5 == 0 ? 0.05F : 0.0F,
                          .repetition_penalty = index % 3 == 1 ? 1.2F : 1.0F,
                          .frequency_penalty = index % 7 == 0 ? 0.5F : 0.0F,
                          .seed = static_cast<std::uint64_t>(index) * 1000003,
                          .log_probabilities = 0};
    }
    // Where the device samples, rows whose log probabilities are wanted take another way.
    request.sampling.log_probabilities = on_host() || index % 4 < 2 ? 0 : -1;
    return request;
  }
};

Subject tiny_moe() {
  Result<model::ModelConfig> config = model::read_model_config(LOCKSTEP_EMBEDDED_MODEL);
  EXPECT_TRUE(config.has_value()) << (config ? "" : config.error().message);
  const auto make = [] {
    Result<std::unique_ptr<model::WeightSource>> source = model::open_safetensors(LOCKSTEP_EMBEDDED_MODEL);
    EXPECT_TRUE(source.has_value()) << (source ? "" : source.error().message);
    return std::move(*source);
  };
  return {"tiny_moe", *config, make, 120};
}

Subject dummy_128_experts() {
  model::ModelConfig config = small_config();
  config.vocabulary_size = 512;
  config.hidden_size = 64;
  config.layer_count = 3;
  config.query_heads = 6;
  config.kv_heads = 3;
  config.head_size = 20;
  config.expert_count = 128;
  config.experts_per_token = 8;
  config.expert_width = 24;
  config.dense_width = 48;
  config.layer_is_sparse = {1, 0, 1};
  return {"dummy_128_experts_top_8", config, [] { return model::make_dummy_weights(7); }, 150};
}

Subject small_dummy() {
  model::ModelConfig config = small_config();
  config.layer_count = 3;
  config.layer_is_sparse = {1, 0, 1};
  return {"small_dummy", config, [] { return model::make_dummy_weights(7); }, 90};
}

scheduler::EngineOptions engine_options(std::int32_t batched_tokens, std::int32_t micro_batches, AgreementMode agreement = AgreementMode::kSync) {
  scheduler::EngineOptions options;
  options.max_num_seqs = 32;
  options.max_num_batched_tokens = batched_tokens;
  options.kv_cache_bytes = std::int64_t{16} << 20;
  options.micro_batches = micro_batches == kAuto ? 4 : micro_batches;
  options.micro_batches_auto = micro_batches == kAuto;
  options.agreement = agreement;
  options.stall_timeout = std::chrono::seconds(200);
  return options;
}

void expect_same(const Completion& found, const Completion& expected, const std::string& what) {
  ASSERT_EQ(found.tokens, expected.tokens) << what;
  ASSERT_EQ(found.log_probabilities.size(), expected.log_probabilities.size()) << what;
  for (std::size_t i = 0; i < found.log_probabilities.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(found.log_probabilities[i]), std::bit_cast<std::uint32_t>(expected.log_probabilities[i]))
        << what << ", token " << i << ": " << found.log_probabilities[i] << " and " << expected.log_probabilities[i];
  }
}

/// Unchunked, one request after the other.
std::vector<Completion> reference_answers(const Subject& subject, int world_size = 1, comm::CombineMode combine = comm::CombineMode::kPerExpert) {
  scheduler::EngineOptions options = engine_options(2048, 1);
  options.combine = combine;
  GroupHarness group({.world_size = world_size, .config = subject.config, .make_weights = subject.make_weights, .engine = options});
  group.wait_until_running();
  std::vector<Completion> answers;
  for (int index = 0; index < request_count(); ++index) {
    const GenerationRequest request = subject.request(index);
    const Status accepted = group.submit(0, request);
    EXPECT_TRUE(accepted) << (accepted ? "" : accepted.error().message);
    answers.push_back(group.wait(request.id));
    EXPECT_EQ(answers.back().tokens.size(), static_cast<std::size_t>(answer_tokens()));
  }
  return answers;
}

struct Case {
  int world_size;
  std::int32_t micro_batches;
  std::int32_t batched_tokens;  ///< 2048: no prompt is chunked; 48: the longer ones are
  AgreementMode agreement = AgreementMode::kSync;
  comm::CombineMode combine = comm::CombineMode::kPerExpert;
};

std::vector<Case> cases() {
  if (!on_host()) {
    return {{1, 2, 48}, {2, 1, 2048}, {2, 2, 48}, {2, 4, 48, kAhead}, {4, 2, 48}};
  }
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  // Each world size and each way once: a sanitizer looks at the code's paths, the whole product is for the answers.
  return {{1, 2, 48},     {2, 1, 2048}, {2, 2, 48},         {3, 2, 2048},       {4, 1, 48},        {8, 2, 48},
          {2, kAuto, 48}, {2, 4, 48},   {1, 1, 48, kAhead}, {2, 2, 48, kAhead}, {4, 1, 48, kAhead}};
#else
  std::vector<Case> all{{2, 4, 48},           {4, 4, 2048},       {2, kAuto, 48},     {4, kAuto, 2048},     {1, 1, 48, kAhead},    {3, 2, 2048, kAhead},
                        {2, 1, 2048, kAhead}, {2, 2, 48, kAhead}, {4, 1, 48, kAhead}, {4, 2, 2048, kAhead}, {4, kAuto, 48, kAhead}};
  for (const int world_size : {1, 2, 3, 4, 8}) {
    for (const std::int32_t micro_batches : {1, 2}) {
      all.push_back({world_size, micro_batches, 2048});
      all.push_back({world_size, micro_batches, 48});
    }
  }
  return all;
#endif
}

class OneAnswer : public ::testing::TestWithParam<int> {
 protected:
  static Subject subject() {
    if (!on_host()) {
      return small_dummy();
    }
    return GetParam() == 0 ? tiny_moe() : dummy_128_experts();
  }
};

void check_case(const Subject& subject, const std::vector<Completion>& expected, const Case& parameters) {
  const std::string what = subject.name + ", world " + std::to_string(parameters.world_size) + ", micro-batches " + std::to_string(parameters.micro_batches) +
                           ", batched tokens " + std::to_string(parameters.batched_tokens) + ", " + agreement_name(parameters.agreement);
  scheduler::EngineOptions options = engine_options(parameters.batched_tokens, parameters.micro_batches, parameters.agreement);
  options.combine = parameters.combine;
  GroupHarness group({.world_size = parameters.world_size, .config = subject.config, .make_weights = subject.make_weights, .engine = options});
  group.wait_until_running();
  // Alone, on each rank in turn.
  for (int rank = 0; rank < parameters.world_size; ++rank) {
    GenerationRequest request = subject.request(rank % 2);
    request.id = static_cast<scheduler::RequestId>(1000 + rank);
    ASSERT_TRUE(group.submit(rank, request)) << what;
    ASSERT_NO_FATAL_FAILURE(
        expect_same(group.wait(request.id), expected[static_cast<std::size_t>(rank % 2)], what + ", alone on rank " + std::to_string(rank)));
  }
  // All on one rank, then spread over the ranks.
  for (const bool spread : {false, true}) {
    std::vector<scheduler::RequestId> ids;
    for (int index = 0; index < request_count(); ++index) {
      GenerationRequest request = subject.request(index);
      request.id = static_cast<scheduler::RequestId>((spread ? 3000 : 2000) + index);
      ids.push_back(request.id);
      ASSERT_TRUE(group.submit(spread ? (index * 5 + 1) % parameters.world_size : parameters.world_size - 1, request)) << what;
    }
    for (int index = 0; index < request_count(); ++index) {
      ASSERT_NO_FATAL_FAILURE(expect_same(group.wait(ids[static_cast<std::size_t>(index)]), expected[static_cast<std::size_t>(index)],
                                          what + (spread ? ", spread" : ", among all") + ", request " + std::to_string(index)));
    }
  }
  const RankCounters counters = group.counters(parameters.world_size - 1);
  EXPECT_GE(counters.requests_in_step_max, request_count() * 3 / 4) << what;
  EXPECT_EQ(counters.split_steps > 0, parameters.micro_batches != 1) << what;
  // A prompt that fits is cut all the same when it would hold up running requests for long.
  if (parameters.batched_tokens < subject.longest_prompt) {
    EXPECT_GE(counters.prefill_chunks_max, 2) << what;
  }
  EXPECT_EQ(counters.crossed_rows > 0, parameters.world_size > 1) << what;
}

TEST_P(OneAnswer, HoldsAtEveryWorldSizeWithOneAndTwoMicroBatchesChunkedOrNot) {
  const Subject model = subject();
  const std::vector<Completion> expected = reference_answers(model);
  for (const Case& parameters : cases()) {
    ASSERT_NO_FATAL_FAILURE(check_case(model, expected, parameters));
  }
}

TEST_P(OneAnswer, HoldsWithinEachWorldSizeWhenRanksSumByThemselves) {
  constexpr auto kPerRank = comm::CombineMode::kPerRank;
  const Subject model = subject();
  for (const int world_size : {1, 2, 3}) {
    const std::vector<Completion> expected = reference_answers(model, world_size, kPerRank);
    ASSERT_NO_FATAL_FAILURE(check_case(model, expected, {world_size, 1, 2048, AgreementMode::kSync, kPerRank}));
    ASSERT_NO_FATAL_FAILURE(check_case(model, expected, {world_size, 2, 48, kAhead, kPerRank}));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, OneAnswer, ::testing::Range(0, on_host() ? 2 : 1), [](const auto& chosen) {
  if (!on_host()) {
    return "SmallDummy";
  }
  return chosen.param == 0 ? "TinyMoe" : "Dummy128ExpertsTop8";
});

}  // namespace
}  // namespace lockstep::tests
