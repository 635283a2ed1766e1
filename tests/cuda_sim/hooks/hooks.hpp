// What the double of another library asks of the simulated runtime. None of it is CUDA's.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

extern "C" {

/// Enqueues a piece of the stream's work. `run` is called once, on the stream's thread, without access to the device's memory, and may wait for the host or
/// for other devices. False: the current device has no such stream.
[[nodiscard]] bool cuda_sim_enqueue(cudaStream_t stream, const char* label, void (*run)(void* data), void* data);
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
