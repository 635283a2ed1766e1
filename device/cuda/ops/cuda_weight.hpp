// CudaWeight: a matrix on the device, bfloat16, row-major as the model file has it.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/memory/device_memory.hpp"
#include "lockstep/device/ops.hpp"

namespace lockstep::device::cuda {

class CudaWeight final : public PackedWeight {
 public:
  /// Rounds the source to bfloat16 on the host and copies it, a few rows at a time; returns when it is there.
  /// Errors  kInvalidArgument: no rows or columns; kResourceExhausted; kInternal: CUDA's.
  [[nodiscard]] static Result<WeightHandle> create(const CudaContext& context, DeviceMemory& memory, const MatrixSource& source);

  [[nodiscard]] std::int64_t output_features() const override { return rows_; }
  [[nodiscard]] std::int64_t input_features() const override { return columns_; }
  [[nodiscard]] std::int64_t bytes() const override { return static_cast<std::int64_t>(data_.bytes()); }
  [[nodiscard]] const BFloat16* data() const { return data_.as<BFloat16>(); }

 private:
  CudaWeight(Buffer data, std::int64_t rows, std::int64_t columns) : data_(std::move(data)), rows_(rows), columns_(columns) {}

  const Buffer data_;  ///< [rows, columns]
  const std::int64_t rows_;
  const std::int64_t columns_;
};

}  // namespace lockstep::device::cuda
