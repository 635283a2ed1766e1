// Matrix products by AMX: the layout of a weight as tiles, and the kernel over it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/host/product/amx/packed_tiles.hpp"

namespace lockstep::device::host {

/// Tiles side by side that are read together; a block is one unit of work, and one stretch of memory.
inline constexpr int kBlockTiles = 4;
inline constexpr int kBlockOutputs = kBlockTiles * kTileOutputs;

/// A weight as tiles: [blocks][input_tiles][tiles of the block], zeros beyond its outputs and inputs; a block has kBlockTiles tiles, the last one as many as
/// its outputs need. Either plain or packed.
struct WeightTiles {
  const std::byte* tiles = nullptr;
  bool packed = false;
  // Of packed ones.
  const UpperBytes* codes = nullptr;
  const TileException* exceptions = nullptr;       ///< of all blocks
  const std::uint32_t* first_exception = nullptr;  ///< [blocks + 1]
};

/// A product's operands.
struct TileProduct {
  const BFloat16* x = nullptr;  ///< [rows][input_tiles * kTileInputs]
  WeightTiles weight;
  std::int64_t input_tiles = 0;
  std::int64_t rows = 0;
  std::int64_t output = 0;
  float* out = nullptr;  ///< [rows][output]
};

/// Bytes of scratch for a product by a weight of `input_tiles`: a block of plain tiles.
constexpr std::size_t tile_scratch_bytes(std::int64_t input_tiles) {
  return static_cast<std::size_t>(input_tiles) * kBlockTiles * kTileBytes;
}

/// Computes the outputs of blocks [first, last) for all rows. Each result is: for each 32 inputs in order, a sum of the even and one of the odd products,
/// added to what there is so far; so it depends on its own row only, bit for bit, and not on whether the weight is packed.
/// `scratch` [tile_scratch_bytes()], aligned to 64 bytes, is the calling thread's; needed for packed weights.      Threads  any; blocks may be computed by
/// different ones.      Cost  reads each block once for up to 32 rows; packed ones once for all rows.
/// Call tile_release() on the thread when done for now: live tiles make its context switches dearer.
void tile_product(const TileProduct& product, std::int64_t first, std::int64_t last, std::byte* scratch);
void tile_release();

}  // namespace lockstep::device::host
