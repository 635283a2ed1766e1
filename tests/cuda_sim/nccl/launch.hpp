// How launches of simulated NCCL take their place on a device.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <functional>
#include <mutex>
#include <set>
#include <span>

#include "tests/cuda_sim/nccl/calls.hpp"

namespace nccl_sim {

/// NCCL_LAUNCH_ORDER_IMPLICIT, from version 2.26 on: launches of one device run in the order in which the host made them, whichever their streams. A launch of
/// a graph is one of them, and its calls run in the order of their capture. Stricter than CUDA 12.3 and later, where the next may begin once the one before has
/// begun: here it has to have ended.
[[nodiscard]] bool has_implicit_order();
/// NCCL_GRAPH_MIXING_SUPPORT, 1 unless set: launches of graphs have an order among other launches. 0: none, not even among those of one communicator.
[[nodiscard]] bool orders_graphs();
/// LOCKSTEP_SIM_NCCL_VERSION, as ncclGetVersion tells it.
[[nodiscard]] int simulated_version();

/// Launches that run one after the other, in the order of the host's calls.
class LaunchQueue {
 public:
  /// The place of a launch, on the host's thread. `end` has to follow.
  [[nodiscard]] std::uint64_t take();
  /// Until all places taken earlier have ended. False: `is_stopped` said so before.
  [[nodiscard]] bool wait(std::uint64_t place, const std::function<bool()>& is_stopped);
  void end(std::uint64_t place);
  void wake();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t taken_ = 0;
  std::set<std::uint64_t> open_;
};

/// A device runs one kernel of NCCL at a time. A real one may run several, as far as its multiprocessors go: who relies on that hangs sometimes.
class KernelSlot {
 public:
  static KernelSlot& of(int device);
  /// False: `is_stopped` said so before it was our turn.
  [[nodiscard]] bool take(const std::function<bool()>& is_stopped);
  void give_back();
  void wake();
  /// The implicit order's.
  [[nodiscard]] LaunchQueue& queue() { return queue_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool taken_ = false;
  LaunchQueue queue_;
};

/// While one lives, a device is the thread's.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    static_cast<void>(cudaGetDevice(&before_));
    static_cast<void>(cudaSetDevice(device));
  }
  ~CurrentDevice() { static_cast<void>(cudaSetDevice(before_)); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

inline constexpr const char* kKernelLabel = "a kernel of NCCL";

/// What the calls send, with the calls, as the hub wants it. What they receive is poison from here on, until it has come.
[[nodiscard]] Bytes read_sent(std::span<const LocalCall> calls, int ranks);
void write_received(std::span<const LocalCall> calls, int ranks, const Bytes& result);

}  // namespace nccl_sim
