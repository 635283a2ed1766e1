// All experts of a layer on one device: rows are grouped there, by kernels that the host launches without knowing how many rows each expert gets.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/memory/device_memory.hpp"
#include "lockstep/device/local_experts.hpp"

namespace lockstep::device::cuda {

class CudaLocalExperts final : public LocalExperts {
 public:
  /// Errors  kResourceExhausted; kInternal: CUDA's.
  [[nodiscard]] static Result<std::unique_ptr<LocalExperts>> create(const CudaContext& context, DeviceMemory& memory, const LocalExpertsOptions& options);

  void compute(Stream& stream, std::size_t layer, const ChosenExperts& chosen, float* out) override;

 private:
  struct Shape {
    std::int64_t experts = 0;
    std::int64_t hidden = 0;
    std::int64_t width = 0;
  };

  explicit CudaLocalExperts(const LocalExpertsOptions& options);
  [[nodiscard]] Status allocate(DeviceMemory& memory);
  /// Brings the addresses of all weights to the device.
  [[nodiscard]] Status place_weights(const CudaContext& context, DeviceMemory& memory, const LocalExpertsOptions& options);
  /// [experts], on the device, of one layer's gate_up (0) or down (1).
  [[nodiscard]] const BFloat16* const* weights(std::size_t layer, std::size_t which) const {
    return weights_.as<const BFloat16*>() + (2 * layer + which) * static_cast<std::size_t>(shape_.experts);
  }

  const std::int64_t rows_max_;
  const int top_k_;
  Shape shape_;
  Buffer weights_;    ///< [layers][2][experts] addresses
  Buffer offsets_;    ///< int32 [experts + 1]: where each expert's rows begin
  Buffer source_;     ///< int32 [rows * top_k]: the row that is at a place
  Buffer place_of_;   ///< int32 [rows * top_k]: the place of a row's choice
  Buffer grouped_;    ///< BFloat16 [rows * top_k, hidden], in order of experts: what they read, then what they give
  Buffer gate_up_;    ///< float [rows * top_k, 2 * width]
  Buffer activated_;  ///< BFloat16 [rows * top_k, width]
  Buffer down_;       ///< float [rows * top_k, hidden]
  Buffer returned_;   ///< BFloat16 [rows * top_k, hidden], in order of the rows' choices
};

}  // namespace lockstep::device::cuda
