// Matrix products by oneDNN, pinned so that rows do not depend on each other: docs/decisions/0003-host-matmul.md.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include <dnnl.hpp>

#include "device/host/instruction_set.hpp"
#include "device/host/kernels/kernels.hpp"
#include "device/host/product/host_weight.hpp"
#include "device/host/product/weight_memory.hpp"

namespace lockstep::device::host {

/// A call with any number of rows is cut into calls with these numbers, for which code is made once; cutting is free of consequence because each row's result
/// is the same in all of them.
inline constexpr std::array<int, 11> kCallRows{64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1};

/// Ownership  code and scratch per shape; weights are the callers'.      Threads  one at a time.
class OneDnnProduct {
 public:
  [[nodiscard]] static Result<std::unique_ptr<OneDnnProduct>> create(ProductKind kind, const Kernels& kernels);

  /// Errors  kUnsupported: oneDNN has no pinned implementation for this shape.
  [[nodiscard]] Result<WeightHandle> pack(const MatrixSource& source);
  [[nodiscard]] Status prepare(const WeightShape& shape, std::int64_t rows_max);
  void multiply(const BFloat16* x, const HostWeight& weight, std::int64_t rows, float* out);

 private:
  /// Code for one number of rows, with the arguments that `execute` takes; weights and data pointers change from call to call.
  struct Call {
    dnnl::primitive code;
    dnnl::memory x;
    dnnl::memory out;
    dnnl::memory scratch;
  };
  struct Shape {
    WeightShape weight;
    dnnl::memory::desc layout;
    std::array<std::optional<Call>, kCallRows.size()> calls{};  ///< by index into kCallRows
  };

  OneDnnProduct(ProductKind kind, const Kernels& kernels);
  [[nodiscard]] dnnl::matmul::primitive_desc describe(const WeightShape& shape, int rows, const dnnl::memory::desc& layout) const;
  /// The entry of a shape, made at its first use.
  [[nodiscard]] Result<Shape*> shape_for(const WeightShape& shape);
  [[nodiscard]] Result<Call*> call_for(Shape& shape, std::size_t index);
  [[nodiscard]] Result<dnnl::memory::desc> pinned_layout(const WeightShape& shape) const;
  [[nodiscard]] Status grow_scratch(const WeightShape& shape);
  void execute(Call& call, const void* x, const HostWeight& weight, float* out);

  const Kernels* kernels_;
  const dnnl::memory::data_type type_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  WeightMemory memory_;
  std::vector<std::unique_ptr<Shape>> shapes_;  ///< few: a model has a handful of shapes
  Buffer x_scratch_;                            ///< one call's rows, widened
};

}  // namespace lockstep::device::host
