// Matrix products by our own AMX kernel over bfloat16 tiles: docs/decisions/0009-amx-kernel.md.
#pragma once

#include <span>
#include <vector>

#include "device/host/compute_pool.hpp"
#include "device/host/kernels/kernels.hpp"
#include "device/host/product/amx/tile_product.hpp"
#include "device/host/product/host_weight.hpp"
#include "device/host/product/weight_memory.hpp"

namespace lockstep::device::host {

/// Reads each weight once per call, at the speed of the memory; large ones lie there in 12 bits a value (packed_tiles.hpp).
/// Ownership  scratch; weights are the callers'.      Threads  one at a time; the blocks of
/// a call are shared with the pool's threads.
class AmxProduct {
 public:
  AmxProduct(const Kernels& kernels, ComputePool& pool) : kernels_(&kernels), pool_(&pool) {}

  [[nodiscard]] Result<WeightHandle> pack(const MatrixSource& source);
  /// Makes room for the padded rows of a weight whose inputs fill no whole tiles, and for its unpacked blocks.
  [[nodiscard]] Status prepare(const WeightShape& shape, std::int64_t rows_max);
  void multiply(const BFloat16* x, const HostWeight& weight, std::int64_t rows, float* out);
  /// Rows [offsets[g], offsets[g + 1]) by weights[g], all groups in one go.
  void multiply_groups(const BFloat16* x, const GroupedRows& groups, float* out);

 private:
  /// One product of a call; its blocks are units [first_unit, the next one's first_unit).
  struct Part {
    TileProduct product;
    std::int64_t first_unit = 0;
  };
  void add_part(const BFloat16* x, const HostWeight& weight, std::int64_t rows, float* out);
  /// `x` with its rows filled up to whole tiles: itself where they are.
  [[nodiscard]] const BFloat16* padded(const BFloat16* x, std::int64_t input, std::int64_t rows);
  void run_parts();
  void run_units(std::int64_t first, std::int64_t last, std::size_t participant) const;

  const Kernels* kernels_;
  ComputePool* pool_;
  WeightMemory memory_;
  Buffer x_scratch_;
  std::int64_t x_used_ = 0;  ///< elements of x_scratch_ taken by this call
  Buffer block_scratch_;     ///< [pool size][block_bytes_], a block of plain tiles for each of the pool's threads
  std::size_t block_bytes_ = 0;
  std::vector<Part> parts_;
  std::int64_t units_ = 0;
  std::int64_t work_bytes_ = 0;
};

}  // namespace lockstep::device::host
