// ComputePool: the threads that share a rank's ops.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "lockstep/core/result.hpp"

namespace lockstep::device::host {

/// Fork and join within one op: the caller and the pool's threads compute units of it, each unit once, in any order; what a unit computes must not depend on
/// who computes it. Every participant begins with its own share, the same one for the same number of units, so that what it reads stays in its core's cache;
/// who is done takes from the others' shares, so that a thread that lost its core holds up one unit at most.
/// Ownership  its threads, size - 1 of them; the caller is the last one.      Threads  `run` by any; while one runs, another's is computed by its caller alone.
/// Cost  about 1 us where the threads are looking for work, which they do for a short while after each run; then they sleep, and are woken by the next run.
class ComputePool {
 public:
  /// Units of one run, at most.
  static constexpr std::int64_t kUnitsMax = 0xffff;

  /// Errors  kResourceExhausted: no thread.
  [[nodiscard]] static Result<std::unique_ptr<ComputePool>> create(int size);
  ~ComputePool();
  ComputePool(const ComputePool&) = delete;
  ComputePool& operator=(const ComputePool&) = delete;

  [[nodiscard]] int size() const { return static_cast<int>(shares_.size()); }
  /// Calls `body(unit, participant)` for each unit of [0, units) and returns when all are done; at once, in order, on this thread where size is 1.
  /// `participant` is in [0, size) and no two threads of a run have the same: what a thread's scratch is found by. 0 where one thread computes all.
  template <typename Body>
  void run(std::int64_t units, const Body& body) {
    const Unit unit = [](const void* context, std::int64_t index, std::size_t participant) { (*static_cast<const Body*>(context))(index, participant); };
    run_units(units, unit, &body);
  }

 private:
  using Unit = void (*)(const void* context, std::int64_t unit, std::size_t participant);
  /// Units of one participant that nobody has taken: generation of the run, next and end, in one word, so that they are taken by one compare and exchange and
  /// a thread that comes late for a run finds another generation.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> word{0};
  };

  explicit ComputePool(int size) : shares_(static_cast<std::size_t>(size)) {}
  void run_units(std::int64_t units, Unit unit, const void* context);
  /// Computes units of the run `generation` until none is left.
  void work(std::size_t participant, std::uint32_t generation);
  void serve(std::size_t participant, const std::stop_token& stop);

  std::vector<Share> shares_;
  // Of the run: atomics, since a thread that comes late may read them while the next run is being set up; it then takes no unit.
  std::atomic<Unit> unit_{nullptr};
  std::atomic<const void*> context_{nullptr};
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  alignas(64) std::atomic<std::int64_t> units_done_{0};
  std::atomic<bool> busy_{false};
  std::vector<std::jthread> threads_;  ///< last: they use all of the above
};

}  // namespace lockstep::device::host
