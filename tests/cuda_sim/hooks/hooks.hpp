// What the double of another library asks of the simulated runtime. None of it is CUDA's.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <functional>
#include <vector>

namespace cuda_sim {

/// A kernel that waits for other devices.
struct WaitingKernel {
  const char* label = "";
  /// Called on the host's thread at each launch, by a call or by a graph; what it returns is called on the stream's thread, without access to the device's
  /// memory, and may wait for the host or for other devices.
  std::function<std::function<void()>(bool by_graph)> prepare;
  /// In a capture it comes after the last kernel of each of these.
  std::vector<const void*> chains;
  /// Its launches wait for those of the same order by themselves; null: for none.
  const void* order = nullptr;
};

/// What a stream is captured into.
struct CaptureState {
  unsigned long long id = 0;  ///< 0: nothing
  bool is_global = false;     ///< by cudaStreamCaptureModeGlobal
};

}  // namespace cuda_sim

extern "C" {

/// Enqueues the kernel on a stream of the current device, or captures it.      Errors  CUDA's.
[[nodiscard]] cudaError_t cuda_sim_launch(cudaStream_t stream, cuda_sim::WaitingKernel kernel);
void cuda_sim_capture(cudaStream_t stream, cuda_sim::CaptureState* state);
/// What CUDA says to a call that could wait for the device, such as cudaMalloc, while the thread captures: the capture does not survive it.
[[nodiscard]] cudaError_t cuda_sim_refuse_while_capturing();
/// Enqueues a kernel: `run` is called on the stream's thread with access to the device's memory, once, or each time that a graph of it runs; `release` when
/// it will not be called any more. False: the current device has no such stream, and `data` is released.
[[nodiscard]] bool cuda_sim_enqueue_kernel(cudaStream_t stream, const char* label, void (*run)(void* data), void (*release)(void* data), void* data);
/// Calls `body` with the access to the device's memory that a stream's work has.
void cuda_sim_with_device_memory(const char* label, void (*body)(void* data), void* data);
/// Violation where [data, data + bytes) is not within one allocation of the device.
void cuda_sim_check_device_range(const void* data, std::size_t bytes, const char* call);
/// One of `choices` things that a device may do: 0 on the schedule early, the last on late, drawn on random.
[[nodiscard]] unsigned cuda_sim_draw(unsigned choices);

}  // extern "C"
