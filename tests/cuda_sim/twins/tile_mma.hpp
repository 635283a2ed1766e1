// The twin of the instruction in device/cuda/kernels/product/tile_mma.cuh, by hand: lanes lay out their fragments, and each adds up its own four sums.
// Order   a sum takes in its 16 products one after the other, in ascending order, each by a fused multiply-add. The device's own order is not documented (PTX
// ISA
//         9.0, "mma": accumulation order and rounding are unspecified), so results of the two agree but for rounding.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "device/cuda/kernels/product/tile_mma.cuh"
#include "tests/cuda_sim/twins/language.hpp"

namespace lockstep::device::cuda {

/// What the lanes of a warp bring to one instruction.
struct WarpFragments {
  WeightFragment weight[kWarpLanes];
  RowFragment x[kWarpLanes];
};

/// Returns when all lanes of the warp have called it.
inline void gather_warp() {
  static_cast<void>(__shfl_sync(kAllLanes, 0, 0));
}

/// One of the two bfloat16 of a word; the first is in the lower half.
inline float half_of(std::uint32_t pair, int which) {
  return std::bit_cast<float>(which == 0 ? pair << 16U : pair & 0xffff0000U);
}

inline float weight_value(const WarpFragments& of, int output, int input) {
  const WeightFragment& lane = of.weight[output % 8 * 4 + input % 8 / 2];
  return half_of(lane.pairs[output / 8 + input / 8 * 2], input % 2);
}

inline float row_value(const WarpFragments& of, int row, int input) {
  return half_of(of.x[row * 4 + input % 8 / 2].pairs[input / 8], input % 2);
}

inline void add_tile_product(const WeightFragment& weight, const RowFragment& x, TileSums& sums) {
  constexpr int kWarpsMax = 32;
  static thread_local WarpFragments warps[kWarpsMax];
  const int lane = ::cuda_sim::lane_of_current_thread();
  WarpFragments& warp = warps[threadIdx.x / kWarpLanes];
  warp.weight[lane] = weight;
  warp.x[lane] = x;
  gather_warp();
  for (int i = 0; i < 4; ++i) {
    const int output = lane / 4 + i / 2 * 8;
    const int row = lane % 4 * 2 + i % 2;
    for (int input = 0; input < kTileInputs; ++input) {
      sums.values[i] = std::fma(weight_value(warp, output, input), row_value(warp, row, input), sums.values[i]);
    }
  }
  gather_warp();  // the next instruction's fragments take these's place
}

}  // namespace lockstep::device::cuda
