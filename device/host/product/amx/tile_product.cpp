#include "device/host/product/amx/tile_product.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace lockstep::device::host {

namespace {

/// The operand of ldtilecfg, palette 1.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

constexpr int kTileRows = 16;
constexpr int kRowsTogether = 2 * kTileRows;

// Assembly and not GCC 12's intrinsics: those tell the compiler neither that a configuration of 64 bytes is read, nor that a tile's load reads memory; it then
// drops or moves the stores before them. No compiler switch is needed either, so nothing here can be used by accident elsewhere.
template <int kTile>
void load_tile(const void* from, std::int64_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride_bytes), "i"(kTile) : "memory");
}
template <int kTile>
void store_tile(void* to, std::int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride_bytes), "i"(kTile) : "memory");
}
template <int kTile>
void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kSum, int kX, int kWeight>
void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kX), "i"(kWeight));
}

/// Up to 16 rows: tiles 0 to 3 are their sums with the block's four tiles, 4 the rows of x, 5 to 7 the weight's.
/// Up to 32 rows: tiles 0 and 1 are the sums of the first 16 with two tiles, 2 and 3 those of the others, 4 and 5 the rows of x, 6 and 7 the weight's.
void configure(std::int64_t rows) {
  const bool many = rows > kTileRows;
  const auto upper = static_cast<std::uint8_t>(many ? kTileRows : rows);
  const auto lower = static_cast<std::uint8_t>(many ? rows - kTileRows : rows);
  TileConfig config;
  std::fill_n(config.row_bytes, 8, std::uint16_t{64});
  const std::uint8_t fifth = many ? lower : kTileRows;
  const std::uint8_t tile_rows[8] = {upper, upper, lower, lower, upper, fifth, kTileRows, kTileRows};
  std::copy_n(tile_rows, 8, config.rows);
  asm volatile("ldtilecfg %0" : : "m"(config));
}

/// Where one tile of sums goes: whole, or through a copy where the output ends inside it.
template <int kTile>
void store_sums(const TileProduct& product, std::int64_t row, std::int64_t rows, std::int64_t column) {
  float* to = product.out + row * product.output + column;
  const std::int64_t columns = product.output - column;
  if (columns >= kTileOutputs) {
    store_tile<kTile>(to, product.output * static_cast<std::int64_t>(sizeof(float)));
    return;
  }
  alignas(64) float sums[kTileRows][kTileOutputs];
  store_tile<kTile>(sums, sizeof sums[0]);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * product.output, sums[r], static_cast<std::size_t>(columns) * sizeof(float));
  }
}

/// Gives the tiles of a block one input tile after the other: kTiles side by side, from `first_tile` of the block's `block_tiles`.
class PlainReader {
 public:
  PlainReader(const std::byte* block, std::int64_t first_tile, std::int64_t block_tiles)
      : next_(block + static_cast<std::size_t>(first_tile) * kTileBytes), step_(static_cast<std::size_t>(block_tiles) * kTileBytes) {}
  const std::byte* next() { return std::exchange(next_, next_ + step_); }

 private:
  const std::byte* next_;
  std::size_t step_;
};

/// Puts the values that have no code into plain tiles.
class ExceptionWriter {
 public:
  ExceptionWriter(const WeightTiles& weight, std::int64_t block)
      : next_(weight.exceptions + weight.first_exception[block]), end_(weight.exceptions + weight.first_exception[block + 1]) {}
  /// Tiles [first, first + count) of the block, counted over all its inputs, are at `tiles`; later calls are for later tiles, and tiles that are left out are
  /// another reader's.
  void write(std::int64_t first, std::int64_t count, std::byte* tiles) {
    for (; next_ != end_ && next_->position < (first + count) * kTileValues; ++next_) {
      if (next_->position >= first * kTileValues) {
        std::memcpy(tiles + (next_->position - first * kTileValues) * sizeof(BFloat16), &next_->value, sizeof(BFloat16));
      }
    }
  }

 private:
  const TileException* next_;
  const TileException* end_;
};

/// The same of packed tiles, unpacked one step ahead of their use, so that they have left the store buffer when a tile register reads them.
template <int kTiles>
class UnpackingReader {
 public:
  UnpackingReader(const TileProduct& product, std::int64_t block, std::int64_t first_tile, std::int64_t block_tiles, const std::byte* packed)
      : codes_(*product.weight.codes),
        exceptions_(product.weight, block),
        from_(packed + static_cast<std::size_t>(first_tile) * kPackedTileBytes),
        step_(static_cast<std::size_t>(block_tiles) * kPackedTileBytes),
        tile_(first_tile),
        tile_step_(block_tiles),
        tile_end_(product.input_tiles * block_tiles) {
    unpack(buffers_[0]);
  }
  const std::byte* next() {
    const std::byte* now = buffers_[current_];
    current_ ^= 1U;
    if (tile_ < tile_end_) {
      unpack(buffers_[current_]);
    }
    return now;
  }

 private:
  void unpack(std::byte* to) {
    unpack_tiles(from_, kTiles, codes_, to);
    exceptions_.write(tile_, kTiles, to);
    from_ += step_;
    tile_ += tile_step_;
  }

  const UpperBytes& codes_;
  ExceptionWriter exceptions_;
  const std::byte* from_;
  std::size_t step_;
  std::int64_t tile_;  ///< the next one, over all inputs of the block
  std::int64_t tile_step_;
  std::int64_t tile_end_;
  std::size_t current_ = 0;
  alignas(64) std::byte buffers_[2][kTiles * kTileBytes];
};

/// Up to 16 rows by kTiles tiles side by side.
template <int kTiles, typename Reader>
void multiply_few(const TileProduct& product, std::int64_t row, std::int64_t rows, std::int64_t column, Reader&& reader) {
  const std::int64_t stride = product.input_tiles * kTileInputs * static_cast<std::int64_t>(sizeof(BFloat16));
  const auto* x = reinterpret_cast<const std::byte*>(product.x) + row * stride;
  clear_tile<0>();
  clear_tile<1>();
  clear_tile<2>();
  clear_tile<3>();
  for (std::int64_t k = 0; k < product.input_tiles; ++k, x += kTileInputs * sizeof(BFloat16)) {
    const std::byte* tiles = reader.next();
    load_tile<4>(x, stride);
    load_tile<5>(tiles, 64);
    multiply_tiles<0, 4, 5>();
    if constexpr (kTiles > 1) {
      load_tile<6>(tiles + kTileBytes, 64);
      multiply_tiles<1, 4, 6>();
    }
    if constexpr (kTiles > 2) {
      load_tile<7>(tiles + 2 * kTileBytes, 64);
      multiply_tiles<2, 4, 7>();
    }
    if constexpr (kTiles > 3) {
      load_tile<6>(tiles + 3 * kTileBytes, 64);
      multiply_tiles<3, 4, 6>();
    }
  }
  store_sums<0>(product, row, rows, column);
  if constexpr (kTiles > 1) {
    store_sums<1>(product, row, rows, column + kTileOutputs);
  }
  if constexpr (kTiles > 2) {
    store_sums<2>(product, row, rows, column + 2 * kTileOutputs);
  }
  if constexpr (kTiles > 3) {
    store_sums<3>(product, row, rows, column + 3 * kTileOutputs);
  }
}

/// 17 to 32 rows by kTiles tiles.
template <int kTiles, typename Reader>
void multiply_many(const TileProduct& product, std::int64_t row, std::int64_t rows, std::int64_t column, Reader&& reader) {
  const std::int64_t stride = product.input_tiles * kTileInputs * static_cast<std::int64_t>(sizeof(BFloat16));
  const auto* x = reinterpret_cast<const std::byte*>(product.x) + row * stride;
  clear_tile<0>();
  clear_tile<1>();
  clear_tile<2>();
  clear_tile<3>();
  for (std::int64_t k = 0; k < product.input_tiles; ++k, x += kTileInputs * sizeof(BFloat16)) {
    const std::byte* tiles = reader.next();
    load_tile<4>(x, stride);
    load_tile<6>(tiles, 64);
    multiply_tiles<0, 4, 6>();
    load_tile<5>(x + kTileRows * stride, stride);
    multiply_tiles<2, 5, 6>();
    if constexpr (kTiles > 1) {
      load_tile<7>(tiles + kTileBytes, 64);
      multiply_tiles<1, 4, 7>();
      multiply_tiles<3, 5, 7>();
    }
  }
  store_sums<0>(product, row, kTileRows, column);
  store_sums<2>(product, row + kTileRows, rows - kTileRows, column);
  if constexpr (kTiles > 1) {
    store_sums<1>(product, row, kTileRows, column + kTileOutputs);
    store_sums<3>(product, row + kTileRows, rows - kTileRows, column + kTileOutputs);
  }
}

/// A block's place in the weight.
struct Block {
  std::int64_t index = 0;
  std::int64_t tiles = 0;            ///< side by side
  const std::byte* first = nullptr;  ///< its tiles
  bool packed = false;
};

template <int kTiles>
void multiply_few_of(const TileProduct& product, std::int64_t row, std::int64_t rows, std::int64_t column, const Block& block) {
  if (block.packed) {
    multiply_few<kTiles>(product, row, rows, column, UnpackingReader<kTiles>(product, block.index, 0, kTiles, block.first));
  } else {
    multiply_few<kTiles>(product, row, rows, column, PlainReader(block.first, 0, kTiles));
  }
}

template <int kTiles>
void multiply_many_of(const TileProduct& product, std::int64_t row, std::int64_t rows, std::int64_t column, const Block& block, std::int64_t tile) {
  if (block.packed) {
    multiply_many<kTiles>(product, row, rows, column, UnpackingReader<kTiles>(product, block.index, tile, block.tiles, block.first));
  } else {
    multiply_many<kTiles>(product, row, rows, column, PlainReader(block.first, tile, block.tiles));
  }
}

/// Up to kRowsTogether rows of one block; the tiles are configured for them.
void multiply_block(const TileProduct& product, std::int64_t row, std::int64_t rows, const Block& block) {
  const std::int64_t column = block.index * kBlockOutputs;
  if (rows <= kTileRows) {
    constexpr void (*kKernels[])(const TileProduct&, std::int64_t, std::int64_t, std::int64_t, const Block&) = {multiply_few_of<1>, multiply_few_of<2>,
                                                                                                                multiply_few_of<3>, multiply_few_of<4>};
    kKernels[block.tiles - 1](product, row, rows, column, block);
    return;
  }
  for (std::int64_t tile = 0; tile < block.tiles; tile += 2) {
    const auto kernel = block.tiles - tile > 1 ? multiply_many_of<2> : multiply_many_of<1>;
    kernel(product, row, rows, column + tile * kTileOutputs, block, tile);
  }
}

Block block_at(const TileProduct& product, std::int64_t index) {
  const std::size_t tile_bytes = product.weight.packed ? kPackedTileBytes : kTileBytes;
  return {.index = index,
          .tiles = std::min<std::int64_t>(kBlockTiles, (product.output - index * kBlockOutputs + kTileOutputs - 1) / kTileOutputs),
          .first = product.weight.tiles + static_cast<std::size_t>(index * product.input_tiles) * kBlockTiles * tile_bytes,
          .packed = product.weight.packed};
}

/// The block as plain tiles at `scratch`.
Block unpack_block(const TileProduct& product, const Block& block, std::byte* scratch) {
  const std::int64_t tiles = product.input_tiles * block.tiles;
  unpack_tiles(block.first, static_cast<int>(tiles), *product.weight.codes, scratch);
  ExceptionWriter(product.weight, block.index).write(0, tiles, scratch);
  return {.index = block.index, .tiles = block.tiles, .first = scratch};
}

}  // namespace

void tile_product(const TileProduct& product, std::int64_t first, std::int64_t last, std::byte* scratch) {
  if (product.rows <= kRowsTogether) {
    configure(product.rows);
    for (std::int64_t index = first; index < last; ++index) {
      multiply_block(product, 0, product.rows, block_at(product, index));
    }
    return;
  }
  for (std::int64_t index = first; index < last; ++index) {
    Block block = block_at(product, index);
    if (block.packed) {
      block = unpack_block(product, block, scratch);  // once for all rows
    }
    configure(kRowsTogether);
    std::int64_t row = 0;
    for (; row + kRowsTogether <= product.rows; row += kRowsTogether) {
      multiply_block(product, row, kRowsTogether, block);
    }
    if (row < product.rows) {
      configure(product.rows - row);
      multiply_block(product, row, product.rows - row, block);
    }
  }
}

void tile_release() {
  asm volatile("tilerelease");
}

}  // namespace lockstep::device::host
