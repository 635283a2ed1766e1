// Matrix products by AMX: the layout of a weight as tiles, and the kernel over it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lockstep/core/bfloat16.hpp"

namespace lockstep::device::host {

/// A tile of a weight: 16 outputs by 32 inputs, as [16 pairs of inputs][16 outputs][2], 1 KiB.
inline constexpr int kTileOutputs = 16;
inline constexpr int kTileInputs = 32;
inline constexpr std::size_t kTileBytes = 1024;
/// Tiles side by side that are read together; a block is one unit of work, and one stretch of memory.
inline constexpr int kBlockTiles = 4;
inline constexpr int kBlockOutputs = kBlockTiles * kTileOutputs;

/// A product's operands. Layout of `tiles`: [blocks][input_tiles][tiles of the block], zeros beyond `output` and the weight's inputs; a block has kBlockTiles
/// tiles, the last one as many as its outputs need.
struct TileProduct {
  const BFloat16* x = nullptr;  ///< [rows][input_tiles * kTileInputs]
  const std::byte* tiles = nullptr;
  std::int64_t input_tiles = 0;
  std::int64_t rows = 0;
  std::int64_t output = 0;
  float* out = nullptr;  ///< [rows][output]
};

/// Computes the outputs of blocks [first, last) for all rows. Each result is: for each 32 inputs in order, a sum of the even and one of the odd products,
/// added to what there is so far; so it depends on its own row only, bit for bit.      Threads  any; blocks may be computed by different ones.
/// Cost  reads each block once for up to 32 rows. Call tile_release() on the thread when done for now: live tiles make its context switches dearer.
void tile_product(const TileProduct& product, std::int64_t first, std::int64_t last);
void tile_release();

}  // namespace lockstep::device::host
