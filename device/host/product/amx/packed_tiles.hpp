// Packed tiles: a bfloat16 weight in 12 bits a value, without loss. docs/decisions/0015-packed-weights.md
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lockstep/core/bfloat16.hpp"

namespace lockstep::device::host {

/// A tile of a weight: 16 outputs by 32 inputs, as [16 pairs of inputs][16 outputs][2], 1 KiB.
inline constexpr int kTileOutputs = 16;
inline constexpr int kTileInputs = 32;
inline constexpr std::size_t kTileBytes = 1024;
inline constexpr int kTileValues = kTileOutputs * kTileInputs;
/// The same tile packed: the values' lower bytes, then a code of 4 bits for each upper byte (sign and upper seven bits of the exponent).
inline constexpr std::size_t kPackedTileBytes = 768;

/// The 16 upper bytes that codes stand for: those that a weight has most often.
using UpperBytes = std::array<std::uint8_t, 16>;

/// How often each upper byte occurs in some of a weight's values.
class UpperByteCounts {
 public:
  void add(std::span<const BFloat16> values);
  [[nodiscard]] UpperBytes most_frequent() const;
  /// Values that none of `codes` stands for.
  [[nodiscard]] std::int64_t outside(const UpperBytes& codes) const;
  [[nodiscard]] std::int64_t total() const;

 private:
  std::array<std::int64_t, 256> counts_{};
};

/// A value whose upper byte has no code, put right after unpacking: about one in 10,000 of the embedded model's weights.
struct TileException {
  std::uint32_t position = 0;  ///< in its block: tile * kTileValues + value
  BFloat16 value;
};

/// What unpacking a weight needs beside its packed tiles.
struct TileCoding {
  UpperBytes codes{};
  std::vector<TileException> exceptions;       ///< of all blocks, in order
  std::vector<std::uint32_t> first_exception;  ///< [blocks + 1]
};

/// Packs tiles of one weight. Needs  AVX-512 VBMI, which every processor with AMX has.
class TilePacker {
 public:
  explicit TilePacker(const UpperBytes& codes);
  /// One tile, [kTileValues] at `tile`, to kPackedTileBytes at `out`; exceptions are appended, their positions counted from `first_position`, not in order
  /// within the tile.
  void pack(const std::byte* tile, std::uint32_t first_position, std::byte* out, std::vector<TileException>& exceptions) const;

 private:
  alignas(64) std::array<std::uint8_t, 256> code_of_;  ///< kNoCode where there is none
};

/// Unpacks `count` tiles side by side into kTileBytes each; without their exceptions.
/// Needs  AVX-512 VBMI.      Cost  about 60 cycles a tile from a near cache; memory is slower.
void unpack_tiles(const std::byte* packed, int count, const UpperBytes& codes, std::byte* out);

}  // namespace lockstep::device::host
