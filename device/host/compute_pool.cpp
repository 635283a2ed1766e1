#include "device/host/compute_pool.hpp"

#include <chrono>
#include <pthread.h>
#include <sched.h>
#include <system_error>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"

namespace lockstep::device::host {

namespace {

/// How long a thread looks for the next run before it sleeps: longer than what lies between two products of a step, so that a step wakes nobody but at its
/// begin; short against the time in which an idle daemon's use of the core would be noticed.
constexpr std::chrono::microseconds kLookFor{100};
constexpr int kLooksPerClock = 32;
/// About 20 us: longer than most units take.
constexpr int kLooksPerYield = 512;

constexpr std::uint64_t share_word(std::uint32_t generation, std::uint64_t next, std::uint64_t end) {
  return std::uint64_t{generation} << 32U | next << 16U | end;
}

void pause_core() {
  __builtin_ia32_pause();
}

}  // namespace

Result<std::unique_ptr<ComputePool>> ComputePool::create(int size) {
  LOCKSTEP_CHECK(size >= 1, "a compute pool of {}", size);
  std::unique_ptr<ComputePool> pool(new ComputePool(size));
  try {
    for (int participant = 1; participant < size; ++participant) {
      pool->threads_.emplace_back([self = pool.get(), participant](const std::stop_token& stop) { self->serve(static_cast<std::size_t>(participant), stop); });
    }
  } catch (const std::system_error& thrown) {
    return Error{ErrorCode::kResourceExhausted,
                 fmt::format("cannot start {} compute threads: {}; raise the limit of processes or threads", size - 1, thrown.what())};
  }
  return pool;
}

ComputePool::~ComputePool() {
  for (std::jthread& thread : threads_) {
    thread.request_stop();
  }
  generation_.fetch_add(1);
  generation_.notify_all();
}

void ComputePool::run_units(std::int64_t units, Unit unit, const void* context) {
  LOCKSTEP_CHECK(units <= kUnitsMax, "{} units in one run, at most {}", units, kUnitsMax);
  if (shares_.size() == 1 || units < 2 || busy_.exchange(true, std::memory_order_acquire)) {
    for (std::int64_t i = 0; i < units; ++i) {
      unit(context, i, 0);
    }
    return;
  }
  unit_.store(unit, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  units_done_.store(0, std::memory_order_relaxed);
  const std::uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  const auto count = static_cast<std::uint64_t>(units);
  for (std::size_t i = 0; i < shares_.size(); ++i) {
    shares_[i].word.store(share_word(generation, count * i / shares_.size(), count * (i + 1) / shares_.size()), std::memory_order_release);
  }
  generation_.store(generation);
  generation_.notify_all();  // a look at a counter where nobody sleeps
  work(0, generation);
  for (int look = 1; units_done_.load(std::memory_order_acquire) < units; ++look) {
    pause_core();
    if (look % kLooksPerYield == 0) {
      sched_yield();  // whoever computes the last unit may have lost its core to us
    }
  }
  busy_.store(false, std::memory_order_release);
}

void ComputePool::work(std::size_t participant, std::uint32_t generation) {
  for (std::size_t turn = 0; turn < shares_.size(); ++turn) {
    std::atomic<std::uint64_t>& word = shares_[(participant + turn) % shares_.size()].word;
    std::uint64_t seen = word.load(std::memory_order_acquire);
    while (seen >> 32U == generation && (seen >> 16U & 0xffffU) < (seen & 0xffffU)) {
      // Read before the unit is taken: once it is, the run cannot end before it is done; before, it can, and then taking fails.
      const Unit unit = unit_.load(std::memory_order_relaxed);
      const void* context = context_.load(std::memory_order_relaxed);
      const auto index = static_cast<std::int64_t>(seen >> 16U & 0xffffU);
      if (word.compare_exchange_weak(seen, seen + (std::uint64_t{1} << 16U), std::memory_order_acq_rel, std::memory_order_acquire)) {
        unit(context, index, participant);
        units_done_.fetch_add(1, std::memory_order_release);
        seen = word.load(std::memory_order_acquire);
      }
    }
  }
}

void ComputePool::serve(std::size_t participant, const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), fmt::format("compute{}", participant).c_str());
  std::uint32_t served = 0;
  while (!stop.stop_requested()) {
    const auto until = std::chrono::steady_clock::now() + kLookFor;
    std::uint32_t generation = served;
    for (int look = 1; (generation = generation_.load(std::memory_order_acquire)) == served; ++look) {
      pause_core();
      if (look % kLooksPerYield == 0) {
        sched_yield();  // whoever delivers tokens may have lost its core to us, and would else have it back at the next timer tick, some steps later
      }
      if (look % kLooksPerClock == 0 && std::chrono::steady_clock::now() > until) {
        generation_.wait(served);
      }
    }
    work(participant, generation);
    served = generation;
  }
}

}  // namespace lockstep::device::host
