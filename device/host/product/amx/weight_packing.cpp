#include "device/host/product/amx/weight_packing.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "device/host/product/amx/tile_product.hpp"
#include "device/host/product/host_weight.hpp"
#include "device/host/product/matrix_source.hpp"

namespace lockstep::device::host {

namespace {

/// Smaller weights stay plain: a model of such is read from the caches, which are faster than unpacking.
constexpr std::int64_t kPackedFromBytes = 256 << 10;
/// A weight is packed if it has at most one exception in so many values. The embedded model, which is trained, has one in 4,000 to 24,000.
constexpr std::int64_t kValuesPerException = 256;
/// Codes are chosen by so many groups of 16 outputs, evenly spread: counting all of a model's values would take as long as packing them.
constexpr std::int64_t kBandsSampled = 16;

constexpr std::int64_t round_up(std::int64_t count, std::int64_t unit) {
  return (count + unit - 1) / unit * unit;
}

/// Writes up to 16 outputs' weights, [16][input_tiles * kTileInputs], as the tiles of one column of tiles, `step` bytes apart.
void pack_tiles(const BFloat16* rows, std::int64_t input_tiles, std::size_t step, std::byte* to) {
  for (std::int64_t k = 0; k < input_tiles; ++k, to += step) {
    for (std::int64_t n = 0; n < kTileOutputs; ++n) {
      const BFloat16* from = rows + (n * input_tiles + k) * kTileInputs;
      for (std::int64_t pair = 0; pair < kTileInputs / 2; ++pair) {
        std::memcpy(to + (pair * kTileOutputs + n) * 4, from + 2 * pair, 4);
      }
    }
  }
}

/// Reads a matrix 16 outputs at a time, as bfloat16 filled up to whole tiles.
class OutputReader {
 public:
  OutputReader(const MatrixSource& source, const Kernels& kernels)
      : source_(source),
        kernels_(kernels),
        input_tiles_(round_up(source.columns, kTileInputs) / kTileInputs),
        rows_(static_cast<std::size_t>(kTileOutputs * input_tiles_ * kTileInputs)),
        row_(static_cast<std::size_t>(source.columns)) {}

  /// [kTileOutputs][input_tiles * kTileInputs], valid until the next call.
  std::span<const BFloat16> read(std::int64_t first_output) {
    const std::int64_t padded_input = input_tiles_ * kTileInputs;
    for (std::int64_t n = 0; n < kTileOutputs; ++n) {
      BFloat16* to = rows_.data() + n * padded_input;
      const std::int64_t output = first_output + n;
      if (output >= source_.rows) {
        std::fill_n(to, padded_input, BFloat16{});
      } else if (source_.type == DataType::kBFloat16) {
        std::memcpy(to, source_.data + output * source_.columns * 2, static_cast<std::size_t>(source_.columns) * 2);
      } else {
        read_row(source_, output, row_.data());
        kernels_.narrow(row_.data(), source_.columns, to);
      }
    }
    return rows_;
  }

 private:
  const MatrixSource& source_;
  const Kernels& kernels_;
  std::int64_t input_tiles_;
  std::vector<BFloat16> rows_;
  std::vector<float> row_;
};

/// A matrix as tiles.
struct TilesShape {
  explicit TilesShape(const MatrixSource& source)
      : input_tiles(round_up(source.columns, kTileInputs) / kTileInputs), tiles(round_up(source.rows, kTileOutputs) / kTileOutputs) {}
  /// Side by side in the block that begins at tile `first`.
  [[nodiscard]] std::int64_t block_tiles(std::int64_t first) const { return std::min<std::int64_t>(kBlockTiles, tiles - first); }
  /// That block as plain tiles.
  void read_block(OutputReader& reader, std::int64_t first, std::byte* to) const {
    const std::int64_t count = block_tiles(first);
    for (std::int64_t tile = 0; tile < count; ++tile) {
      pack_tiles(reader.read((first + tile) * kTileOutputs).data(), input_tiles, static_cast<std::size_t>(count) * kTileBytes, to + tile * kTileBytes);
    }
  }

  std::int64_t input_tiles;
  std::int64_t tiles;  ///< side by side, of all blocks
};

/// The codes that pay for a weight by some of its values; none where unpacking would be slower than reading.
std::optional<UpperBytes> find_codes(const MatrixSource& source, OutputReader& reader) {
  if (source.rows * source.columns * 2 < kPackedFromBytes) {
    return std::nullopt;
  }
  UpperByteCounts counts;
  const std::int64_t bands = round_up(source.rows, kTileOutputs) / kTileOutputs;
  const std::int64_t step = round_up(bands, kBandsSampled) / kBandsSampled;
  for (std::int64_t band = 0; band < bands; band += step) {
    counts.add(reader.read(band * kTileOutputs));
  }
  const UpperBytes codes = counts.most_frequent();
  return counts.outside(codes) * kValuesPerException <= counts.total() ? std::optional(codes) : std::nullopt;
}

/// Packed tiles; null where too many values have no code.
Result<WeightHandle> pack_coded(const MatrixSource& source, OutputReader& reader, const UpperBytes& codes, WeightMemory& memory) {
  const TilesShape shape(source);
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer packed, memory.allocate(static_cast<std::size_t>(shape.tiles * shape.input_tiles) * kPackedTileBytes));
  const TilePacker packer(codes);
  TileCoding coding{.codes = codes};
  std::vector<std::byte> block(tile_scratch_bytes(shape.input_tiles));
  std::byte* to = packed.as<std::byte>();
  for (std::int64_t first = 0; first < shape.tiles; first += kBlockTiles) {
    shape.read_block(reader, first, block.data());
    coding.first_exception.push_back(static_cast<std::uint32_t>(coding.exceptions.size()));
    for (std::int64_t tile = 0; tile < shape.block_tiles(first) * shape.input_tiles; ++tile, to += kPackedTileBytes) {
      packer.pack(block.data() + tile * kTileBytes, static_cast<std::uint32_t>(tile * kTileValues), to, coding.exceptions);
    }
    std::ranges::sort(std::span(coding.exceptions).subspan(coding.first_exception.back()), {}, &TileException::position);
    if (std::ssize(coding.exceptions) * kValuesPerException > 2 * source.rows * source.columns) {
      return WeightHandle();  // the sample was not like the rest; what was taken of the memory stays unused
    }
  }
  coding.first_exception.push_back(static_cast<std::uint32_t>(coding.exceptions.size()));
  return WeightHandle(std::make_shared<HostWeight>(WeightShape{.input = source.columns, .output = source.rows}, std::move(packed), std::move(coding)));
}

}  // namespace

Result<WeightHandle> pack_weight(const MatrixSource& source, const Kernels& kernels, WeightMemory& memory) {
  OutputReader reader(source, kernels);
  if (const std::optional<UpperBytes> codes = find_codes(source, reader)) {
    LOCKSTEP_ASSIGN_OR_RETURN(WeightHandle packed, pack_coded(source, reader, *codes, memory));
    if (packed != nullptr) {
      return packed;
    }
  }
  const TilesShape shape(source);
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer plain, memory.allocate(static_cast<std::size_t>(shape.tiles * shape.input_tiles) * kTileBytes));
  for (std::int64_t first = 0; first < shape.tiles; first += kBlockTiles) {
    shape.read_block(reader, first, plain.as<std::byte>() + static_cast<std::size_t>(first * shape.input_tiles) * kTileBytes);
  }
  return WeightHandle(std::make_shared<HostWeight>(WeightShape{.input = source.columns, .output = source.rows}, WeightLayout::kTiles, std::move(plain)));
}

}  // namespace lockstep::device::host
