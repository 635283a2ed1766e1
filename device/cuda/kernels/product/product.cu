#include <algorithm>

#include "device/cuda/kernels/launch.hpp"
#include "device/cuda/kernels/product/product.cuh"

namespace lockstep::device::cuda {

namespace {

/// A grid's limit in y. In x, where outputs are, it may have 2^31 - 1.
constexpr std::int64_t kGridMax = 65535;

template <typename Cut>
dim3 grid_of(std::int64_t outputs, std::int64_t row_pieces) {
  return dim3(static_cast<unsigned>((outputs + Cut::kOutputs - 1) / Cut::kOutputs), static_cast<unsigned>(std::min(row_pieces, kGridMax)));
}

/// At least as many pieces as all groups' rows are cut into: each group has one that is not full, at most.
template <typename Cut>
std::int64_t pieces_max(std::int64_t groups, std::int64_t rows) {
  return rows / Cut::kRows + std::min(groups, rows);
}

/// Whether an average group fills more than one piece of the short cut. Either computes the same bits.
bool is_tall(std::int64_t groups, std::int64_t rows) {
  return rows > groups * ShortCut::kRows;
}

}  // namespace

cudaError_t launch_matmul(cudaStream_t stream, const BFloat16* x, const BFloat16* weight, std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
                          float* out) {
  const ProductArguments arguments{.x = x, .weight = weight, .out = out, .inputs = inputs, .outputs = outputs};
  if (rows > 0 && is_tall(1, rows)) {
    tall_matmul_kernel<<<grid_of<TallCut>(outputs, pieces_max<TallCut>(1, rows)), kProductThreads, 0, stream>>>(arguments, rows);
  } else if (rows > 0) {
    short_matmul_kernel<<<grid_of<ShortCut>(outputs, 1), kProductThreads, 0, stream>>>(arguments, rows);
  }
  return cudaGetLastError();
}

cudaError_t launch_grouped_matmul(cudaStream_t stream, const BFloat16* x, const std::int32_t* offsets, const BFloat16* const* weights, std::int64_t groups,
                                  std::int64_t rows, std::int64_t inputs, std::int64_t outputs, float* out) {
  const ProductArguments arguments{.x = x, .weight = nullptr, .out = out, .inputs = inputs, .outputs = outputs};
  const int group_count = static_cast<int>(groups);
  if (rows > 0 && groups > 0 && is_tall(groups, rows)) {
    const dim3 grid = grid_of<TallCut>(outputs, pieces_max<TallCut>(groups, rows));
    tall_grouped_matmul_kernel<<<grid, kProductThreads, 0, stream>>>(arguments, offsets, weights, group_count);
  } else if (rows > 0 && groups > 0) {
    const dim3 grid = grid_of<ShortCut>(outputs, pieces_max<ShortCut>(groups, rows));
    short_grouped_matmul_kernel<<<grid, kProductThreads, 0, stream>>>(arguments, offsets, weights, group_count);
  }
  return cudaGetLastError();
}

}  // namespace lockstep::device::cuda
