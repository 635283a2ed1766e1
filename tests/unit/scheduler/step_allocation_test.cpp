// Goal    A step allocates nothing once warm: a decode step's time must not hang on the heap.
// Method  This program's operator new counts per thread. An engine alone runs on this thread; the observer reads the counter at the end of every step.
//         oneDNN allocates in each of its products, which is not ours to change: where the products are its, only those are allowed for. CMake runs this also
//         with AVX2, where they are our own on every machine.
#include <cstdlib>
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

TEST(StepAllocation, ADecodeStepAllocatesNothingOnceWarm) {
  const model::ModelConfig config = tests::small_config();
  const Result<std::unique_ptr<device::Device>> device = device::make_device("cpu", {});
  ASSERT_TRUE(device);
  const Result<std::unique_ptr<device::Ops>> ops = (*device)->make_ops();
  ASSERT_TRUE(ops);
  const std::string set = (*ops)->instruction_set();
  // Six for each call (measured): per layer three products and two for each of six experts, then the head.
  const std::int64_t allowed = set.starts_with("avx512") && set != "avx512_core_amx" ? 6 * (config.layer_count * (3 + 2 * config.expert_count) + 1) : 0;
  const std::unique_ptr<comm::Communicator> communicator = comm::LocalGroup(1).communicator(0);
  const std::unique_ptr<model::WeightSource> weights = model::make_dummy_weights(5);
  comm::StepProgress progress;
  Counting counting;
  const Result<std::unique_ptr<Engine>> engine =
      Engine::create({.max_num_seqs = 4, .max_num_batched_tokens = 16, .kv_cache_bytes = 1 << 20}, {.config = &config,
                                                                                                    .weights = weights.get(),
                                                                                                    .device = device->get(),
                                                                                                    .communicator = communicator.get(),
                                                                                                    .view = comm::GroupView::initial(1, 0),
                                                                                                    .progress = &progress,
                                                                                                    .sink = &counting,
                                                                                                    .observer = &counting});
  ASSERT_TRUE(engine);
  ASSERT_TRUE((*engine)->load());
  for (RequestId id = 1; id <= 3; ++id) {
    GenerationRequest request = tests::greedy_request(id, {3, 4, static_cast<std::int32_t>(id)}, 100);
    request.ignore_eos = true;
    if (id == 3) {  // the sampler's scratch and counts too
      request.sampling = {.temperature = 1.0F, .top_p = 0.9F, .min_p = 0.01F, .repetition_penalty = 1.1F, .logit_bias = {{5, 1.0F}}, .log_probabilities = 5};
    }
    ASSERT_TRUE((*engine)->submit(request));
  }
  (*engine)->request_drain();
  ASSERT_TRUE((*engine)->run());
  ASSERT_GE(counting.per_step.size(), 100U);
  EXPECT_GT(counting.per_step.front(), 0) << "the counter does not count";
  for (std::size_t step = 10; step < 99; ++step) {
    EXPECT_LE(counting.per_step[step], allowed) << "step " << step;
  }
}

}  // namespace
}  // namespace lockstep::scheduler
