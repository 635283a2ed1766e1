// NcclContext: the device that a rank's communicators use, and how errors of NCCL and CUDA read.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>
#include <nccl.h>
#include <string>
#include <string_view>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm::nccl {

/// Shared by all that one communicator made.      Threads  safe: nothing changes.
class NcclContext {
 public:
  /// Takes the device of the rank's local number among those that CUDA shows; the only one where there is one.
  /// Errors  kUnsupported: no driver or device, or fewer devices than ranks.
  [[nodiscard]] static Result<std::shared_ptr<const NcclContext>> create(const CommOptions& options);

  /// Whether `create` would find one.
  [[nodiscard]] static Status probe(const CommOptions& options);

  [[nodiscard]] int rank() const { return rank_; }
  /// Makes the device the calling thread's: a new thread's is 0.
  [[nodiscard]] Status bind() const { return check(cudaSetDevice(device_), "cudaSetDevice", {}); }
  /// Nothing for success; else an error that names rank, call, place ("communicator \"agreement\""), device and step.
  /// Errors  kResourceExhausted: out of memory; kInternal: all others.
  [[nodiscard]] Status check(cudaError_t code, std::string_view call, std::string_view place) const;
  /// Nothing for success and for a call that goes on by itself. `communicator` may be null; else what NCCL says of it last is added.
  /// Errors  kPeerLost: a peer or the way to it is gone; kInternal: all others.
  [[nodiscard]] Status check(ncclResult_t code, std::string_view call, std::string_view place, ncclComm_t communicator) const;

 private:
  NcclContext(const CommOptions& options, int device) : rank_(options.launch.rank), device_(device), current_step_(options.current_step) {}
  [[nodiscard]] std::string where(std::string_view place) const;

  const int rank_;
  const int device_;
  std::string device_name_ = "unknown";
  const std::function<std::int64_t()> current_step_;
};

}  // namespace lockstep::comm::nccl
