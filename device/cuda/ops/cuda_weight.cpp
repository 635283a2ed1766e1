#include "device/cuda/ops/cuda_weight.hpp"

#include <algorithm>
#include <chrono>
#include <vector>

#include <fmt/format.h>

#include "device/cuda/streams/cuda_stream.hpp"
#include "device/host/product/matrix_source.hpp"

namespace lockstep::device::cuda {

namespace {

/// Page-locked memory that one weight's rows pass through.
constexpr std::int64_t kPassBytes = std::int64_t{8} << 20;
/// Copying so much takes milliseconds: after this long the device hangs.
constexpr Duration kCopyLimit = std::chrono::seconds(60);

}  // namespace

Result<WeightHandle> CudaWeight::create(const CudaContext& context, DeviceMemory& memory, const MatrixSource& source) {
  if (source.rows < 1 || source.columns < 1 || source.data == nullptr) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("a weight of {} x {}: expected at least 1 x 1", source.rows, source.columns)};
  }
  const std::int64_t row_bytes = source.columns * static_cast<std::int64_t>(sizeof(BFloat16));
  const std::int64_t rows_per_pass = std::clamp<std::int64_t>(kPassBytes / row_bytes, 1, source.rows);
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer data, memory.allocate(static_cast<std::size_t>(source.rows * row_bytes)));
  LOCKSTEP_ASSIGN_OR_RETURN(const Buffer pass, allocate_pinned(context, static_cast<std::size_t>(rows_per_pass * row_bytes)));
  // Its own context would outlive the call: borrowed, since the stream does not.
  const std::shared_ptr<const CudaContext> borrowed(std::shared_ptr<const CudaContext>(), &context);
  CudaStream stream(borrowed, "weights", StreamPriority::kNormal);
  std::vector<float> row(static_cast<std::size_t>(source.columns));
  for (std::int64_t first = 0; first < source.rows; first += rows_per_pass) {
    const std::int64_t count = std::min(rows_per_pass, source.rows - first);
    for (std::int64_t r = 0; r < count; ++r) {
      host::read_row(source, first + r, row.data());
      std::ranges::transform(row, pass.as<BFloat16>() + r * source.columns, [](float value) { return BFloat16(value); });
    }
    stream.check(cudaMemcpyAsync(data.as<BFloat16>() + first * source.columns, pass.as<void>(), static_cast<std::size_t>(count * row_bytes),
                                 cudaMemcpyHostToDevice, stream.native()),
                 "cudaMemcpyAsync");
    LOCKSTEP_RETURN_IF_ERROR(stream.synchronize(Deadline::after(kCopyLimit)));
  }
  return WeightHandle(new CudaWeight(std::move(data), source.rows, source.columns));
}

}  // namespace lockstep::device::cuda
