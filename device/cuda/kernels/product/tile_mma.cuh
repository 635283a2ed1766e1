// One warp's product of a tile on tensor cores: 16 outputs times 8 rows over 16 inputs, bfloat16 in, float32 sums (mma.sync.m16n8k16, sm_80 and newer). Which
// lane holds what is part of the instruction's definition, so loads and stores are ours; the instruction alone has a twin: tests/cuda_sim/twins/tile_mma.hpp.
// Source  PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16 with floating point type".
#pragma once

#include "device/cuda/kernels/device_code.cuh"

namespace lockstep::device::cuda {

/// Of one tile.
constexpr int kTileOutputs = 16;
constexpr int kTileRows = 8;
constexpr int kTileInputs = 16;

/// A lane's part of 16 outputs of a weight: pairs of inputs, the lower one in the lower half. With group = lane / 4 and pair = lane % 4:
/// [0] output `group`, inputs 2 * pair and the next; [1] output `group` + 8; [2] and [3] the same outputs, inputs 8 further.
struct WeightFragment {
  std::uint32_t pairs[4];
};

/// A lane's part of 8 rows: [0] row `group`, inputs 2 * pair and the next; [1] inputs 8 further.
struct RowFragment {
  std::uint32_t pairs[2];
};

/// A lane's sums: [0] output `group`, row 2 * pair; [1] the next row; [2] and [3] the same rows, output `group` + 8.
struct TileSums {
  float values[4] = {};
};

}  // namespace lockstep::device::cuda

#ifdef __CUDACC__
namespace lockstep::device::cuda {

/// sums[output][row] += the sum over 16 inputs of weight[output][input] * x[row][input]. All lanes of a warp call it together. In what order the 16 are added
/// the hardware does not say; it is the same for every output and row, as all of a tile are computed alike.
__device__ inline void add_tile_product(const WeightFragment& weight, const RowFragment& x, TileSums& sums) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums.values[0]), "+f"(sums.values[1]), "+f"(sums.values[2]), "+f"(sums.values[3])
               : "r"(weight.pairs[0]), "r"(weight.pairs[1]), "r"(weight.pairs[2]), "r"(weight.pairs[3]), "r"(x.pairs[0]), "r"(x.pairs[1]));
}

}  // namespace lockstep::device::cuda
#endif
