// Matrix products on tensor cores: right for every shape, and the same bits for a row whatever other rows there are. The experts' own; and where cuBLASLt is
// not installed, or has no algorithm for a shape, all. Outputs are a tile's long side and rows its short one: a decode step's few rows an expert leave little
// of a tile empty. Order   an output's sum begins at 0 and takes in 16 inputs an instruction, in ascending order, zeros beyond the last. No cut below changes
// that.
#pragma once

#include "device/cuda/kernels/product/stages.cuh"

namespace lockstep::device::cuda {

struct ProductArguments {
  const BFloat16* x;       ///< [rows][inputs]
  const BFloat16* weight;  ///< [outputs][inputs]
  float* out;              ///< [rows][outputs]
  std::int64_t inputs;
  std::int64_t outputs;
};

/// What a warp computes of a stage. `weight` are the rows of its first output on; of x only the first `row_tiles` tiles are looked at.
template <typename Cut>
__device__ inline void add_stage(const std::uint32_t* weight, const std::uint32_t* x, int row_tiles, TileSums (&sums)[Cut::kOutputTiles][Cut::kRowTiles]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int group = lane / 4;  // of TileSums
  const int pair = lane % 4;
  const auto words = [group, pair](const std::uint32_t* rows, int row, int copy) { return rows[stage_place(row + group, copy) + pair]; };
  for (int copy = 0; copy < kRowCopies; copy += 2) {
    WeightFragment weights[Cut::kOutputTiles];
    for (int o = 0; o < Cut::kOutputTiles; ++o) {
      const int output = o * kTileOutputs;
      weights[o] = {
          {words(weight, output, copy), words(weight, output + kTileRows, copy), words(weight, output, copy + 1), words(weight, output + kTileRows, copy + 1)}};
    }
    for (int r = 0; r < Cut::kRowTiles; ++r) {
      if (r < row_tiles) {
        const RowFragment rows = {{words(x, r * kTileRows, copy), words(x, r * kTileRows, copy + 1)}};
        for (int o = 0; o < Cut::kOutputTiles; ++o) {
          add_tile_product(weights[o], rows, sums[o][r]);
        }
      }
    }
  }
}

/// Writes a warp's sums, from `first_output` and row `begin` on, as far as there are such.
template <typename Cut>
__device__ inline void store_sums(const ProductArguments& p, std::int64_t begin, std::int64_t end, std::int64_t first_output,
                                  const TileSums (&sums)[Cut::kOutputTiles][Cut::kRowTiles]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  for (int r = 0; r < Cut::kRowTiles; ++r) {
    for (int o = 0; o < Cut::kOutputTiles; ++o) {
      for (int i = 0; i < 4; ++i) {
        const std::int64_t row = begin + r * kTileRows + lane % 4 * 2 + i % 2;
        const std::int64_t output = first_output + o * kTileOutputs + lane / 4 + i / 2 * 8;
        if (row < end && output < p.outputs) {
          p.out[row * p.outputs + output] = sums[o][r].values[i];
        }
      }
    }
  }
}

/// A block's outputs of the rows [begin, end), at most Cut::kRows.
template <typename Cut>
__device__ inline void compute_rows(const ProductArguments& p, std::int64_t begin, std::int64_t end) {
  LOCKSTEP_SHARED(ProductStages<Cut>, stages, );
  const std::int64_t block_output = static_cast<std::int64_t>(blockIdx.x) * Cut::kOutputs;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarpLanes * Cut::kOutputTiles * kTileOutputs;
  const int row_tiles = static_cast<int>((end - begin + kTileRows - 1) / kTileRows);
  const std::int64_t outputs_left = p.outputs - block_output;
  const int outputs = outputs_left < Cut::kOutputs ? static_cast<int>(outputs_left) : Cut::kOutputs;
  const int inputs = static_cast<int>(p.inputs);
  const MatrixRows weight{.first = p.weight + block_output * p.inputs, .count = outputs, .width = inputs};
  const MatrixRows x{.first = p.x + begin * p.inputs, .count = static_cast<int>(end - begin), .width = inputs};
  AsyncCopies copies;
  const auto load = [&](int stage) {
    if (stage * kStageInputs < inputs) {
      load_rows<Cut::kOutputs>(weight, stage * kStageInputs, stages.weight[stage % Cut::kStages], copies);
      load_rows<Cut::kRows>(x, stage * kStageInputs, stages.x[stage % Cut::kStages], copies);
    }
    copies.commit();
  };
  TileSums sums[Cut::kOutputTiles][Cut::kRowTiles];
  for (int stage = 0; stage + 1 < Cut::kStages; ++stage) {
    load(stage);
  }
  for (int stage = 0; stage * kStageInputs < inputs; ++stage) {
    copies.wait_for_all_but<Cut::kStages - 2>();
    __syncthreads();                 // this stage's copies are there, and nobody computes the one before any more:
    load(stage + Cut::kStages - 1);  // its place is taken by this one
    if (warp_row < outputs) {
      add_stage<Cut>(stages.weight[stage % Cut::kStages] + warp_row * kStageWords, stages.x[stage % Cut::kStages], row_tiles, sums);
    }
  }
  store_sums<Cut>(p, begin, end, block_output + warp_row, sums);
  copies.wait_for_all_but<0>();
  __syncthreads();  // the block's next rows take the stages again
}

template <typename Cut>
__device__ inline void compute_matrix(const ProductArguments& p, std::int64_t rows) {
  for (std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * Cut::kRows; begin < rows; begin += static_cast<std::int64_t>(gridDim.y) * Cut::kRows) {
    compute_rows<Cut>(p, begin, begin + Cut::kRows < rows ? begin + Cut::kRows : rows);
  }
}

/// Rows of one group that a block computes at once.
struct GroupRows {
  int group;  ///< -1: there are none of this number
  int begin;
  int end;
};

/// All groups' rows cut into pieces of at most `height` rows, none of two groups: the piece `number`. All lanes of a warp call it. The offsets are read here
/// and not on the host: graphs freeze what the host knows.
__device__ inline GroupRows find_rows(const std::int32_t* offsets, int groups, int height, int number) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int before = 0;  // pieces of groups before `first`
  for (int first = 0; first < groups; first += kWarpLanes) {
    const bool there = first + lane < groups;
    const int begin = there ? offsets[first + lane] : 0;
    const int end = there ? offsets[first + lane + 1] : 0;
    const int pieces = (end - begin + height - 1) / height;
    const int through = before + warp_prefix_sum(pieces);
    const int found = warp_count(through <= number);
    if (found < kWarpLanes) {
      const int piece = number - __shfl_sync(kAllLanes, through - pieces, found);
      const int from = __shfl_sync(kAllLanes, begin, found) + piece * height;
      const int group_end = __shfl_sync(kAllLanes, end, found);
      return {.group = first + found, .begin = from, .end = from + height < group_end ? from + height : group_end};
    }
    before = __shfl_sync(kAllLanes, through, kWarpLanes - 1);
  }
  return {.group = -1, .begin = 0, .end = 0};
}

template <typename Cut>
__device__ inline void compute_groups(ProductArguments p, const std::int32_t* offsets, const BFloat16* const* weights, int groups) {
  for (int number = static_cast<int>(blockIdx.y);; number += static_cast<int>(gridDim.y)) {
    const GroupRows rows = find_rows(offsets, groups, Cut::kRows, number);
    if (rows.group < 0) {
      return;
    }
    p.weight = weights[rows.group];
    compute_rows<Cut>(p, rows.begin, rows.end);
  }
}

__global__ void __launch_bounds__(kProductThreads) short_matmul_kernel(ProductArguments p, std::int64_t rows) {
  compute_matrix<ShortCut>(p, rows);
}

__global__ void __launch_bounds__(kProductThreads) tall_matmul_kernel(ProductArguments p, std::int64_t rows) {
  compute_matrix<TallCut>(p, rows);
}

/// All groups by one launch: a group's rows are [offsets[g], offsets[g + 1]), its weight weights[g]. A block that finds no rows ends at once.
__global__ void __launch_bounds__(kProductThreads)
    short_grouped_matmul_kernel(ProductArguments p, const std::int32_t* offsets, const BFloat16* const* weights, int groups) {
  compute_groups<ShortCut>(p, offsets, weights, groups);
}

__global__ void __launch_bounds__(kProductThreads)
    tall_grouped_matmul_kernel(ProductArguments p, const std::int32_t* offsets, const BFloat16* const* weights, int groups) {
  compute_groups<TallCut>(p, offsets, weights, groups);
}

}  // namespace lockstep::device::cuda
