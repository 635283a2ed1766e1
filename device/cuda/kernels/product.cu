#include <algorithm>

#include "device/cuda/kernels/launch.hpp"
#include "device/cuda/kernels/product.cuh"

namespace lockstep::device::cuda {

namespace {

/// A grid's limit in y and z.
constexpr std::int64_t kGridMax = 65535;

unsigned tiles(std::int64_t size) {
  return static_cast<unsigned>(std::min((size + kTileSide - 1) / kTileSide, kGridMax));
}

unsigned column_tiles(std::int64_t outputs) {
  return static_cast<unsigned>((outputs + kTileSide - 1) / kTileSide);  // in x, where a grid may have 2^31 - 1
}

}  // namespace

cudaError_t launch_matmul(cudaStream_t stream, const BFloat16* x, const BFloat16* weight, std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
                          float* out) {
  if (rows > 0) {
    matmul_kernel<<<dim3(column_tiles(outputs), tiles(rows)), dim3(kTileSide, kTileSide), 0, stream>>>(x, weight, rows, inputs, outputs, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_grouped_matmul(cudaStream_t stream, const BFloat16* x, const std::int32_t* offsets, const BFloat16* const* weights, std::int64_t groups,
                                  std::int64_t rows, std::int64_t inputs, std::int64_t outputs, float* out) {
  if (rows > 0 && groups > 0) {
    const dim3 grid(column_tiles(outputs), tiles(rows), static_cast<unsigned>(groups));
    grouped_matmul_kernel<<<grid, dim3(kTileSide, kTileSide), 0, stream>>>(x, offsets, weights, inputs, outputs, out);
  }
  return cudaGetLastError();
}

}  // namespace lockstep::device::cuda
