// Matrix products by our own kernel over float32 panels.
#pragma once

#include "device/host/kernels/kernels.hpp"
#include "device/host/product/host_weight.hpp"
#include "device/host/product/weight_memory.hpp"

namespace lockstep::device::host {

/// For machines without AVX-512, where oneDNN's rows depend on the number of rows.      Threads  one at a time.
class PanelProduct {
 public:
  explicit PanelProduct(const Kernels& kernels) : kernels_(&kernels) {}

  [[nodiscard]] Result<WeightHandle> pack(const MatrixSource& source);
  /// Grows the scratch.
  [[nodiscard]] Status prepare(const WeightShape& shape);
  void multiply(const BFloat16* x, const HostWeight& weight, std::int64_t rows, float* out);

 private:
  const Kernels* kernels_;
  WeightMemory memory_;
  Buffer scratch_;
};

}  // namespace lockstep::device::host
