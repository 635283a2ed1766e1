#include "device/host/product/panel_product.hpp"

#include <vector>

#include "device/host/host_memory.hpp"
#include "device/host/product/matrix_source.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::host {

Result<WeightHandle> PanelProduct::pack(const MatrixSource& source) {
  const WeightShape shape{.input = source.columns, .output = source.rows};
  const std::int64_t panel_count = (shape.output + kPanelWidth - 1) / kPanelWidth;
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer buffer, memory_.allocate(static_cast<std::size_t>(panel_count * shape.input * kPanelWidth) * sizeof(float)));
  std::vector<float> row(static_cast<std::size_t>(shape.input));
  for (std::int64_t n = 0; n < shape.output; ++n) {
    read_row(source, n, row.data());
    float* to = buffer.as<float>() + n / kPanelWidth * shape.input * kPanelWidth + n % kPanelWidth;
    for (std::int64_t k = 0; k < shape.input; ++k) {
      to[k * kPanelWidth] = row[static_cast<std::size_t>(k)];
    }
  }
  return WeightHandle(std::make_shared<HostWeight>(shape, WeightLayout::kPanels, std::move(buffer)));
}

Status PanelProduct::prepare(const WeightShape& shape) {
  const std::size_t bytes = static_cast<std::size_t>(kPanelRows * shape.input) * sizeof(float);
  if (scratch_.bytes() < bytes) {
    LOCKSTEP_ASSIGN_OR_RETURN(scratch_, allocate_zeroed(bytes));
  }
  return {};
}

void PanelProduct::multiply(const BFloat16* x, const HostWeight& weight, std::int64_t rows, float* out) {
  const Status ready = prepare(weight.shape());
  LOCKSTEP_CHECK(ready.has_value(), "matmul of a weight that was not prepared: {}", ready.error().message);
  kernels_->panel_product(x, weight.panels(), rows, weight.input_features(), weight.output_features(), scratch_.as<float>(), out);
}

}  // namespace lockstep::device::host
