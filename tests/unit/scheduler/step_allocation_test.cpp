// Goal    A step allocates nothing once warm: a decode step's time must not hang on the heap.
// Method  This program's operator new counts per thread. An engine runs on this thread, alone or, as steps are agreed on ahead among several only, beside one
//         that is idle and only in the communicator's answers; the observer reads the counter at the end of every step.
//         oneDNN allocates in each of its products, which is not ours to change: where the products are its, only those are allowed for. CMake runs this also
//         with AVX2, where they are our own on every machine.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/comm/local_group.hpp"
#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"

namespace {
thread_local std::int64_t allocations_of_this_thread = 0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): what it counts is global

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations_of_this_thread;
  void* memory = alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__ ? std::malloc(bytes == 0 ? 1 : bytes)
                                                               : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}
}  // namespace

// All forms that allocate here: a library's own would not fit our delete. Not inlined, or GCC takes the free in `delete` for one of foreign memory.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return counted(bytes, 1);
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations_of_this_thread;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace lockstep::scheduler {
namespace {

struct Counting final : OutputSink, StepObserver {
  Counting() { per_step.reserve(1000); }
  void deliver(std::span<const TokenEvent>) override {}
  void on_step(const StepRecord&) override {
    per_step.push_back(allocations_of_this_thread - last);
    last = allocations_of_this_thread;
  }
  std::vector<std::int64_t> per_step;
  std::int64_t last = 0;
};

/// Two members, the other of which wants what this one wants, but has no rows. It has no experts either: nothing is exchanged.
class BesideAnIdleOne final : public comm::Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  Result<comm::Ticket> start_all_reduce(std::span<const std::int32_t> values, comm::ReduceOp) override {
    ++(result_.empty() ? started : started_while_another_was);
    result_.assign(values.begin(), values.end());
    const auto half = values.size() / 2;
    if (values.size() != 2 * comm::kStepFieldCount) {
      std::ranges::copy(values.first(half), result_.begin() + static_cast<std::ptrdiff_t>(half));  // the handshake
      return comm::Ticket{};
    }
    const auto word = [&](comm::StepField field) { return values[2 * static_cast<std::size_t>(field)]; };
    const auto wide = [&](comm::StepField low, comm::StepField high) {
      return std::uint64_t{static_cast<std::uint32_t>(word(high))} << 32U | static_cast<std::uint32_t>(word(low));
    };
    comm::encode_proposal({.step = static_cast<std::int64_t>(wide(comm::StepField::kStepLow, comm::StepField::kStepHigh)),
                           .epoch = word(comm::StepField::kEpoch),
                           .config_hash = wide(comm::StepField::kConfigHashLow, comm::StepField::kConfigHashHigh),
                           .wish = static_cast<comm::ControlWish>(word(comm::StepField::kWish))},
                          1, 2, other_);
    std::ranges::transform(values, other_, result_.begin(), std::plus{});
    return comm::Ticket{};
  }
  Result<comm::Ticket> start_all_to_all(const comm::AllToAll&) override { return Error{ErrorCode::kInternal, "no experts, no exchange"}; }
  Result<bool> test(comm::Ticket) override { return ++tests % 3 == 0; }
  Status wait(comm::Ticket, std::span<std::int32_t> result, const Deadline&) override {
    std::ranges::copy(result_, result.begin());
    result_.clear();
    return {};
  }
  Status wait_all_to_all(comm::Ticket, std::span<std::size_t>, const Deadline&) override { return Error{ErrorCode::kInternal, "no experts, no exchange"}; }
  std::string_view transport() const override { return "beside an idle one"; }

  int started = 0;
  int started_while_another_was = 0;
  int tests = 0;

 private:
  std::vector<std::int32_t> result_;  ///< of the one under way
  std::vector<std::int32_t> other_ = std::vector<std::int32_t>(2 * comm::kStepFieldCount);
};

/// Allocations of each step of three requests of 100 tokens, less those that are oneDNN's.
std::vector<std::int64_t> run_engine(const model::ModelConfig& config, comm::Communicator& communicator, AgreementMode agreement) {
  const Result<std::unique_ptr<device::Device>> device = device::make_device("cpu", {});
  const Result<std::unique_ptr<device::Ops>> ops = (*device)->make_ops();
  const std::string set = (*ops)->instruction_set();
  // Six for each call (measured): per layer three products and two for each of six experts, then the head.
  const std::int64_t allowed =
      set.starts_with("avx512") && set != "avx512_core_amx" ? 6 * (config.layer_count * (3 + 2 * std::max(config.expert_count, 1)) + 1) : 0;
  const std::unique_ptr<model::WeightSource> weights = model::make_dummy_weights(5);
  comm::StepProgress progress;
  Counting counting;
  const Result<std::unique_ptr<Engine>> engine =
      Engine::create({.max_num_seqs = 4, .max_num_batched_tokens = 16, .kv_cache_bytes = 1 << 20, .agreement = agreement},
                     {.config = &config,
                      .weights = weights.get(),
                      .device = device->get(),
                      .communicator = &communicator,
                      .view = comm::GroupView::initial(communicator.size(), 0),
                      .progress = &progress,
                      .sink = &counting,
                      .observer = &counting});
  EXPECT_TRUE(engine) << engine.error().message;
  EXPECT_TRUE((*engine)->load());
  for (RequestId id = 1; id <= 3; ++id) {
    GenerationRequest request = tests::greedy_request(id, {3, 4, static_cast<std::int32_t>(id)}, 100);
    request.ignore_eos = true;
    if (id == 3) {  // the sampler's scratch and counts too
      request.sampling = {.temperature = 1.0F, .top_p = 0.9F, .min_p = 0.01F, .repetition_penalty = 1.1F, .logit_bias = {{5, 1.0F}}, .log_probabilities = 5};
    }
    EXPECT_TRUE((*engine)->submit(request));
  }
  (*engine)->request_drain();
  EXPECT_TRUE((*engine)->run());
  for (std::int64_t& count : counting.per_step) {
    count -= std::min(count, allowed);
  }
  return counting.per_step;
}

void expect_none_once_warm(const std::vector<std::int64_t>& per_step) {
  ASSERT_GE(per_step.size(), 100U);
  EXPECT_GT(per_step.front(), 0) << "the counter does not count";
  for (std::size_t step = 10; step < 99; ++step) {
    EXPECT_EQ(per_step[step], 0) << "step " << step;
  }
}

TEST(StepAllocation, ADecodeStepAllocatesNothingOnceWarm) {
  const std::unique_ptr<comm::Communicator> communicator = comm::LocalGroup(1).communicator(0);
  expect_none_once_warm(run_engine(tests::small_config(), *communicator, AgreementMode::kSync));
}

TEST(StepAllocation, AStepThatIsAgreedOnAheadAllocatesNothingOnceWarm) {
  model::ModelConfig config = tests::small_config();
  config.expert_count = 0;
  config.experts_per_token = 0;
  config.layer_is_sparse = {0, 0};
  BesideAnIdleOne communicator;
  expect_none_once_warm(run_engine(config, communicator, AgreementMode::kPipelined));
  EXPECT_GE(communicator.started, 100);
  EXPECT_EQ(communicator.started_while_another_was, 0) << "one agreement at a time is under way";
  EXPECT_GE(communicator.tests, 100) << "it was tested between stages";
}

}  // namespace
}  // namespace lockstep::scheduler
