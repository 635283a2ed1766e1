// Waiting for a CUDA stream or event with a deadline, which CUDA's own waits do not have.
#pragma once

#include <cuda_runtime_api.h>
#include <string_view>
#include <thread>

#include "device/cuda/cuda_context.hpp"
#include "lockstep/core/deadline.hpp"

namespace lockstep::device::cuda {

/// Asks `query` until it says something else than "not ready". Yields between two looks: what it waits for is microseconds away in a step, and a rank that
/// waits for its device has nothing else to do.
template <typename Query>
[[nodiscard]] Status poll(const Query& query, const CudaContext& context, std::string_view call, std::string_view stream, const Deadline& deadline) {
  for (bool first = true;; first = false) {
    if (const cudaError_t code = query(); code != cudaErrorNotReady) {
      return context.check(code, call, stream);
    }
    if (first) {
      context.count_host_wait();
    }
    LOCKSTEP_RETURN_IF_ERROR(deadline.check());
    std::this_thread::yield();
  }
}

}  // namespace lockstep::device::cuda
