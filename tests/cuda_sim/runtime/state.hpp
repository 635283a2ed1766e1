// What the parts of the simulated API share: handles and the thread's last error.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>
#include <string>

#include "tests/cuda_sim/runtime/schedule.hpp"

namespace cuda_sim {

/// Notes the error as the thread's last one, and returns it: cudaGetLastError's.
cudaError_t failed(cudaError_t code);
/// The calling thread's current device.
[[nodiscard]] int& current_device();
/// The stream of a handle; null: no such stream. The default stream is a violation: it orders itself against all others, which nothing of ours wants.
[[nodiscard]] std::shared_ptr<SimStream> find_stream(cudaStream_t handle, const char* call);

}  // namespace cuda_sim
