// CudaStreamTimes: points of CUDA streams with time stamps.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <memory>
#include <vector>

#include "device/cuda/cuda_context.hpp"
#include "lockstep/device/stream_times.hpp"

namespace lockstep::device::cuda {

/// Events that take the time, which no other event here does. All are made by `create`.
class CudaStreamTimes final : public StreamTimes {
 public:
  [[nodiscard]] static Result<std::unique_ptr<StreamTimes>> create(std::shared_ptr<const CudaContext> context, std::size_t points);
  ~CudaStreamTimes() override;

  void mark(std::size_t point, Stream& stream) override;
  [[nodiscard]] Result<Duration> between(std::size_t from, std::size_t to) const override;

 private:
  explicit CudaStreamTimes(std::shared_ptr<const CudaContext> context) : context_(std::move(context)) {}

  const std::shared_ptr<const CudaContext> context_;  ///< shared with the device
  std::vector<cudaEvent_t> events_;                   ///< [points]
};

}  // namespace lockstep::device::cuda
