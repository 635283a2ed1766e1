// CudaEvent: a point of a CUDA stream, and the failure that the stream had there.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>
#include <mutex>
#include <optional>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/streams/cuda_signal.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device::cuda {

class CudaEvent final : public CudaWaitable {
 public:
  explicit CudaEvent(std::shared_ptr<const CudaContext> context) : context_(std::move(context)) {}
  ~CudaEvent() override;

  [[nodiscard]] bool query() const override;
  [[nodiscard]] Status wait(const Deadline& deadline) override;

  /// Records it on `stream`. Where that stream has failed already, who waits for the event gets `failure`.
  [[nodiscard]] Status record(cudaStream_t stream, std::string_view stream_name, const std::optional<Error>& failure);
  void hold_back(CudaStream& stream) override;

 private:
  const std::shared_ptr<const CudaContext> context_;  ///< shared with the device: an event may be asked after that is gone
  mutable std::mutex mutex_;
  cudaEvent_t native_ = nullptr;  ///< made by the first record
  std::optional<Error> failure_;
};

}  // namespace lockstep::device::cuda
