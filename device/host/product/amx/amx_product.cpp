#include "device/host/product/amx/amx_product.hpp"

#include <algorithm>
#include <cstring>

#include "device/host/host_memory.hpp"
#include "device/host/product/amx/weight_packing.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::host {

namespace {

/// Below this much work a product is done before the pool's threads have noticed it.
constexpr std::int64_t kSharedFromBytes = 192 << 10;
/// Up to this many rows reading the weight is what a product costs; more are counted as reading it again.
constexpr std::int64_t kRowsPerReading = 32;

constexpr std::int64_t round_up(std::int64_t count, std::int64_t unit) {
  return (count + unit - 1) / unit * unit;
}

}  // namespace

Result<WeightHandle> AmxProduct::pack(const MatrixSource& source) {
  return pack_weight(source, *kernels_, memory_);
}

Status AmxProduct::prepare(const WeightShape& shape, std::int64_t rows_max) {
  const std::int64_t padded_input = round_up(shape.input, kTileInputs);
  const std::size_t block_bytes = tile_scratch_bytes(padded_input / kTileInputs);
  if (block_bytes_ < block_bytes) {
    LOCKSTEP_ASSIGN_OR_RETURN(block_scratch_, allocate_zeroed(block_bytes * static_cast<std::size_t>(pool_->size())));
    block_bytes_ = block_bytes;
  }
  const auto bytes = static_cast<std::size_t>(rows_max * padded_input) * sizeof(BFloat16);
  if (shape.input != padded_input && x_scratch_.bytes() < bytes) {
    LOCKSTEP_ASSIGN_OR_RETURN(x_scratch_, allocate_zeroed(bytes));
  }
  return {};
}

const BFloat16* AmxProduct::padded(const BFloat16* x, std::int64_t input, std::int64_t rows) {
  const std::int64_t stride = round_up(input, kTileInputs);
  if (stride == input) {
    return x;
  }
  BFloat16* to = x_scratch_.as<BFloat16>() + x_used_;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * stride, x + r * input, static_cast<std::size_t>(input) * sizeof(BFloat16));
    std::fill_n(to + r * stride + input, stride - input, BFloat16{});
  }
  x_used_ += rows * stride;
  return to;
}

void AmxProduct::add_part(const BFloat16* x, const HostWeight& weight, std::int64_t rows, float* out) {
  if (rows == 0) {
    return;
  }
  const WeightShape& shape = weight.shape();
  parts_.push_back({.product = {.x = padded(x, shape.input, rows),
                                .weight = weight.tiles(),
                                .input_tiles = round_up(shape.input, kTileInputs) / kTileInputs,
                                .rows = rows,
                                .output = shape.output,
                                .out = out},
                    .first_unit = units_});
  units_ += round_up(shape.output, kBlockOutputs) / kBlockOutputs;
  work_bytes_ += weight.bytes() * (round_up(rows, kRowsPerReading) / kRowsPerReading);
}

void AmxProduct::multiply(const BFloat16* x, const HostWeight& weight, std::int64_t rows, float* out) {
  const Status ready = prepare(weight.shape(), rows);
  LOCKSTEP_CHECK(ready.has_value(), "matmul of a weight that was not prepared: {}", ready.error().message);
  add_part(x, weight, rows, out);
  run_parts();
}

void AmxProduct::multiply_groups(const BFloat16* x, const GroupedRows& groups, float* out) {
  if (groups.weights.empty()) {
    return;
  }
  const Status ready = prepare(static_cast<const HostWeight&>(*groups.weights.front()).shape(), groups.offsets.back());
  LOCKSTEP_CHECK(ready.has_value(), "grouped_matmul of weights that were not prepared: {}", ready.error().message);
  for (std::size_t g = 0; g < groups.weights.size(); ++g) {
    const auto& weight = static_cast<const HostWeight&>(*groups.weights[g]);
    const std::int64_t first = groups.offsets[g];
    add_part(x + first * weight.input_features(), weight, groups.offsets[g + 1] - first, out + first * weight.output_features());
  }
  run_parts();
}

void AmxProduct::run_parts() {
  if (work_bytes_ < kSharedFromBytes) {
    run_units(0, units_, 0);
  } else {
    const std::int64_t together = (units_ + ComputePool::kUnitsMax - 1) / ComputePool::kUnitsMax;
    pool_->run((units_ + together - 1) / together, [this, together](std::int64_t unit, std::size_t participant) {
      run_units(unit * together, std::min((unit + 1) * together, units_), participant);
    });
  }
  parts_.clear();
  units_ = 0;
  work_bytes_ = 0;
  x_used_ = 0;
}

void AmxProduct::run_units(std::int64_t first, std::int64_t last, std::size_t participant) const {
  std::byte* scratch = block_scratch_.as<std::byte>() + participant * block_bytes_;
  for (std::size_t i = 0; i < parts_.size() && first < last; ++i) {
    const std::int64_t end = std::min(last, i + 1 < parts_.size() ? parts_[i + 1].first_unit : units_);
    if (first < end) {
      tile_product(parts_[i].product, first - parts_[i].first_unit, end - parts_[i].first_unit, scratch);
      first = end;
    }
  }
  tile_release();
}

}  // namespace lockstep::device::host
