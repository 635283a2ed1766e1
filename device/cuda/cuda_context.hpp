// CudaContext: the device that a rank computes on, and how its errors read.
#pragma once

#include <atomic>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <functional>
#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::device::cuda {

/// Shared by all that one CudaDevice made, and outlives it.      Threads  safe: nothing but counters changes.
class CudaContext {
 public:
  CudaContext(int index, std::string device_name, std::function<std::int64_t()> current_step)
      : index_(index), device_name_(std::move(device_name)), current_step_(std::move(current_step)) {}

  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] const std::string& device_name() const { return device_name_; }

  /// Makes this device the calling thread's: launches go to the thread's current device, and a new thread's is 0.
  [[nodiscard]] Status bind() const { return check(cudaSetDevice(index_), "cudaSetDevice"); }
  /// Nothing for cudaSuccess; else an error that names the call, the device, the stream and the step.
  /// Errors  kResourceExhausted: out of memory; kInternal: all others, the device is not usable any more after most.
  [[nodiscard]] Status check(cudaError_t code, std::string_view call, std::string_view stream = {}) const;

  /// "device 0 (name), stream "compute", step 7", as far as they are known: for errors.
  [[nodiscard]] std::string place(std::string_view stream = {}) const;

  /// A number that no other stream of this context has, from 1 on.
  [[nodiscard]] std::uint64_t new_stream_id() const { return streams_.fetch_add(1, std::memory_order_relaxed) + 1; }
  void count_launch() const { launches_.fetch_add(1, std::memory_order_relaxed); }
  /// Of a graph with so many kernels.
  void count_graph_launch(std::uint64_t kernels) const {
    graph_launches_.fetch_add(1, std::memory_order_relaxed);
    launches_.fetch_add(kernels, std::memory_order_relaxed);
  }
  /// Of a wait that found its work not done.
  void count_host_wait() const { host_waits_.fetch_add(1, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t launches() const { return launches_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t graph_launches() const { return graph_launches_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t host_waits() const { return host_waits_.load(std::memory_order_relaxed); }

 private:
  const int index_;
  const std::string device_name_;
  const std::function<std::int64_t()> current_step_;  ///< may be none
  mutable std::atomic<std::uint64_t> launches_{0};
  mutable std::atomic<std::uint64_t> graph_launches_{0};
  mutable std::atomic<std::uint64_t> host_waits_{0};
  mutable std::atomic<std::uint64_t> streams_{0};
};

}  // namespace lockstep::device::cuda
