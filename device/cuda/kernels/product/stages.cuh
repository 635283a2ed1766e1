// Stages: what a block of a product keeps of its operands, copied while it computes what was copied before.
#pragma once

#include "device/cuda/kernels/product/async_copies.cuh"
#include "device/cuda/kernels/product/tile_mma.cuh"

namespace lockstep::device::cuda {

constexpr int kProductWarps = 4;
constexpr int kProductThreads = kProductWarps * kWarpLanes;
/// Inputs of a stage: what is copied and then computed at once.
constexpr int kStageInputs = 64;
/// A row of a stage is of 32 words, a pair of inputs each: as wide as all banks. Its copies lie in another order in each of eight rows, so that the eight rows
/// of a fragment are in different banks.
constexpr int kStageWords = kStageInputs / 2;
constexpr int kCopyWords = kCopyBytes / 4;
constexpr int kCopyInputs = kCopyBytes / 2;
constexpr int kRowCopies = kStageInputs / kCopyInputs;

/// How a product is cut: a block computes kRows rows of kOutputs outputs, each warp all the rows of its own outputs.
template <int kRowTileCount, int kOutputTileCount, int kStageCount>
struct ProductCut {
  static constexpr int kRowTiles = kRowTileCount;
  static constexpr int kOutputTiles = kOutputTileCount;  ///< of a warp
  static constexpr int kStages = kStageCount;
  static constexpr int kRows = kRowTiles * kTileRows;
  static constexpr int kOutputs = kProductWarps * kOutputTiles * kTileOutputs;
};
/// For few rows a group, where reading weights is all: three stages under way while one is computed. 40 KiB.
using ShortCut = ProductCut<2, 1, 4>;
/// For many: 21 multiplications for each byte copied. 48 KiB, all that a block has without asking for more.
using TallCut = ProductCut<8, 2, 2>;

template <typename Cut>
struct alignas(kStageWords * 4) ProductStages {
  std::uint32_t weight[Cut::kStages][Cut::kOutputs * kStageWords];
  std::uint32_t x[Cut::kStages][Cut::kRows * kStageWords];
};

/// Some rows of a matrix.
struct MatrixRows {
  const BFloat16* first;
  int count;  ///< what comes after these counts as zeros
  int width;
};

/// Where a copy of a row lies in a stage, in words.
__device__ inline int stage_place(int row, int copy) {
  return row * kStageWords + (copy ^ (row % kRowCopies)) * kCopyWords;
}

/// A copy of a row that does not begin at a multiple of kCopyBytes: value by value, at once. Values from `width` on are zeros.
__device__ inline void copy_unaligned(const BFloat16* row, int input, int width, std::uint32_t* to) {
  for (int word = 0; word < kCopyWords; ++word) {
    const int first = input + 2 * word;
    const std::uint32_t low = first < width ? row[first].bits : 0U;
    const std::uint32_t high = first + 1 < width ? row[first + 1].bits : 0U;
    to[word] = low | high << 16U;
  }
}

/// Brings kStageInputs inputs from `input` on of `kCount` rows; what is outside of the matrix becomes 0.
template <int kCount>
__device__ inline void load_rows(const MatrixRows& rows, int input, std::uint32_t* stage, AsyncCopies& copies) {
  constexpr int kRowsAtOnce = kProductThreads / kRowCopies;
  static_assert(kCount % kRowsAtOnce == 0);
  const int copy = static_cast<int>(threadIdx.x) % kRowCopies;
  const int first_row = static_cast<int>(threadIdx.x) / kRowCopies;
  const int first = input + copy * kCopyInputs;
  const bool aligned = rows.width % kCopyInputs == 0 && reinterpret_cast<std::uintptr_t>(rows.first) % kCopyBytes == 0;
  for (int i = 0; i < kCount / kRowsAtOnce; ++i) {
    const int row = first_row + i * kRowsAtOnce;
    const bool inside = row < rows.count && first < rows.width;
    const BFloat16* from = rows.first + (inside ? static_cast<std::int64_t>(row) * rows.width : 0);
    std::uint32_t* to = stage + stage_place(row, copy);
    if (aligned) {
      copies.start(to, inside ? from + first : rows.first, inside);
    } else {
      copy_unaligned(from, first, inside ? rows.width : 0, to);
    }
  }
}

}  // namespace lockstep::device::cuda
