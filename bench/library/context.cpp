// What contexts cost: entering and leaving a ForwardContext, recording a time, walking micro-batches. Prints JSON: medians over rounds.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include "lockstep/forward_context.hpp"
#include "lockstep/micro_batch.hpp"

namespace {

// operator new has no other place to count.
std::atomic<std::uint64_t> allocations{0};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

}  // namespace

void* operator new(std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes)) {
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*bytes*/) noexcept {
  std::free(memory);
}

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kRounds = 15;

/// Median over rounds of the nanoseconds that one of `calls` calls takes.
template <typename Body>
double nanoseconds_per_call(int calls, Body body) {
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < calls; ++i) {
      body(i);
    }
    rounds.push_back(std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / calls);
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

double enter_and_leave() {
  const lockstep::ForwardContext context = lockstep::create_forward_context({.num_tokens = 32});
  return nanoseconds_per_call(200'000, [&context](int /*i*/) {
    const lockstep::set_forward_context scope(context);
    benchmark::DoNotOptimize(&lockstep::get_forward_context());
  });
}

double record() {
  lockstep::ForwardTimingTracker tracker;
  return nanoseconds_per_call(200'000, [&tracker](int i) { tracker.record(1 + i % 32, 0.5); });
}

struct WalkCosts {
  double microseconds = 0;  ///< per micro-batch
  double allocations = 0;   ///< per micro-batch, after the first walk
};

/// 128 micro-batches on host streams, each with an output and an empty body, walked again and again.
WalkCosts walk() {
  constexpr int kMicroBatches = 128;
  lockstep::StreamManager streams;
  lockstep::MicroBatchContext<std::int32_t> micro_batches({.batch_size = 8 * kMicroBatches, .micro_batch_size = 8, .stream_manager = &streams});
  const auto once = [&micro_batches](int /*i*/) {
    for (const lockstep::MicroBatchInfo& info : micro_batches.iterate()) {
      micro_batches.record_output(info.size);
    }
    micro_batches.reset(8 * kMicroBatches);
  };
  once(0);
  const std::uint64_t before = allocations.load();
  const double nanoseconds = nanoseconds_per_call(200, once);
  return {.microseconds = nanoseconds / 1000 / kMicroBatches,
          .allocations = static_cast<double>(allocations.load() - before) / (200.0 * kRounds * kMicroBatches)};
}

}  // namespace

int main() {
  const double enter_leave_ns = enter_and_leave();
  const double record_ns = record();
  const WalkCosts costs = walk();
  fmt::print("{{\"enter_leave_ns\": {:.2f}, \"record_ns\": {:.2f}, \"micro_batch_us\": {:.4f}, \"micro_batch_allocations\": {:.4f}}}\n", enter_leave_ns,
             record_ns, costs.microseconds, costs.allocations);
  return 0;
}
