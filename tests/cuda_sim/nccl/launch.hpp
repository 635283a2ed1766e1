// How launches of simulated NCCL take their place on a device.
#pragma once

#include <condition_variable>
#include <cuda_runtime_api.h>
#include <functional>
#include <mutex>
#include <span>

#include "tests/cuda_sim/nccl/communicator.hpp"

namespace nccl_sim {

/// NCCL_LAUNCH_ORDER_IMPLICIT, from version 2.26 on: launches of one device run in the order in which the host made them, whichever their streams.
/// Stricter than CUDA 12.3 and later, where the next may begin once the one before has begun: here it has to have ended.
[[nodiscard]] bool has_implicit_order();
/// LOCKSTEP_SIM_NCCL_VERSION, as ncclGetVersion tells it.
[[nodiscard]] int simulated_version();

/// A device runs one kernel of NCCL at a time. A real one may run several, as far as its multiprocessors go: who relies on that hangs sometimes.
class KernelSlot {
 public:
  static KernelSlot& of(int device);
  /// False: `is_stopped` said so before it was our turn.
  [[nodiscard]] bool take(const std::function<bool()>& is_stopped);
  void give_back();
  void wake();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool taken_ = false;
};

/// Enqueues `kernel` on the device's stream; false: the device has no such stream.
[[nodiscard]] bool enqueue_kernel(int device, cudaStream_t stream, std::function<void()> kernel);

/// What the calls send, with the calls, as the hub wants it. What they receive is poison from here on, until it has come.
[[nodiscard]] Bytes read_sent(std::span<const LocalCall> calls, int ranks);
void write_received(std::span<const LocalCall> calls, int ranks, const Bytes& result);

}  // namespace nccl_sim
