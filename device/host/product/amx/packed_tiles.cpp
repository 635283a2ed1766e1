#include "device/host/product/amx/packed_tiles.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <immintrin.h>
#include <numeric>

// No compiler switch: nothing of it can be used by accident elsewhere.
#define LOCKSTEP_TARGET_VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi")))

namespace lockstep::device::host {

namespace {

/// Values that are unpacked together: their lower bytes fill one vector, their codes half of one.
constexpr int kGroupValues = 64;
constexpr int kGroups = kTileValues / kGroupValues;
constexpr std::uint8_t kNoCode = 16;
constexpr std::size_t kCacheLine = 64;
/// How far ahead of unpacking the memory is asked, into the second cache: unpacking keeps the core too busy to have as many loads under way as plain tiles
/// have. Measured on one core, 1 to 32 rows: 1.06 times as fast as plain tiles without, 1.2 with 1.5 KiB, 1.3 with 6 KiB, 1.27 with 12 KiB; less into the first
/// cache.
constexpr std::size_t kPrefetchBytes = 8 * kPackedTileBytes;

/// Where in a group each lower byte comes from: two vectors of results are interleaved from 16-byte lanes of lower and upper bytes, the first 8 of each lane
/// going to the first vector, the others to the second.
constexpr std::array<std::uint8_t, kGroupValues> byte_places() {
  std::array<std::uint8_t, kGroupValues> places{};
  for (unsigned value = 0; value < kGroupValues; ++value) {
    const unsigned half = value / 32;
    const unsigned lane = value % 32 / 8;
    places[lane * 16 + half * 8 + value % 8] = static_cast<std::uint8_t>(2 * value);
  }
  return places;
}
alignas(64) constexpr std::array<std::uint8_t, kGroupValues> kBytePlaces = byte_places();

}  // namespace

void UpperByteCounts::add(std::span<const BFloat16> values) {
  // Equal values follow each other often; counting in four places keeps one increment from waiting for the one before it.
  std::array<std::array<std::int32_t, 256>, 4> counts{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    ++counts[i % 4][values[i].bits >> 8U];
  }
  for (std::size_t byte = 0; byte < counts_.size(); ++byte) {
    counts_[byte] += std::int64_t{counts[0][byte]} + counts[1][byte] + counts[2][byte] + counts[3][byte];
  }
}

UpperBytes UpperByteCounts::most_frequent() const {
  std::array<std::uint8_t, 256> bytes{};
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  std::ranges::stable_sort(bytes, std::greater(), [this](std::uint8_t byte) { return counts_[byte]; });
  UpperBytes codes{};
  std::copy_n(bytes.begin(), codes.size(), codes.begin());
  return codes;
}

std::int64_t UpperByteCounts::outside(const UpperBytes& codes) const {
  std::int64_t inside = 0;
  for (const std::uint8_t byte : codes) {
    inside += counts_[byte];
  }
  return total() - inside;
}

std::int64_t UpperByteCounts::total() const {
  return std::accumulate(counts_.begin(), counts_.end(), std::int64_t{0});
}

TilePacker::TilePacker(const UpperBytes& codes) {
  code_of_.fill(kNoCode);
  for (std::size_t code = 0; code < codes.size(); ++code) {
    code_of_[codes[code]] = static_cast<std::uint8_t>(code);
  }
}

LOCKSTEP_TARGET_VBMI void TilePacker::pack(const std::byte* tile, std::uint32_t first_position, std::byte* out, std::vector<TileException>& exceptions) const {
  const __m512i lower_places = _mm512_load_si512(kBytePlaces.data());
  const __m512i upper_places = _mm512_or_si512(lower_places, _mm512_set1_epi8(1));
  const __m512i positive[2] = {_mm512_load_si512(code_of_.data()), _mm512_load_si512(code_of_.data() + 64)};
  const __m512i negative[2] = {_mm512_load_si512(code_of_.data() + 128), _mm512_load_si512(code_of_.data() + 192)};
  for (int group = 0; group < kGroups; ++group, tile += 2 * kGroupValues) {
    const __m512i first = _mm512_loadu_si512(tile);
    const __m512i second = _mm512_loadu_si512(tile + kGroupValues);
    const __m512i upper = _mm512_permutex2var_epi8(first, upper_places, second);
    _mm512_storeu_si512(out + group * kGroupValues, _mm512_permutex2var_epi8(first, lower_places, second));
    // A look-up goes by seven bits; the eighth is the sign.
    const __m512i codes = _mm512_mask_blend_epi8(_mm512_movepi8_mask(upper), _mm512_permutex2var_epi8(positive[0], upper, positive[1]),
                                                 _mm512_permutex2var_epi8(negative[0], upper, negative[1]));
    const __m512i pairs =
        _mm512_or_si512(_mm512_and_si512(codes, _mm512_set1_epi16(0x0f)), _mm512_and_si512(_mm512_srli_epi16(codes, 4), _mm512_set1_epi16(0xf0)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kTileValues + group * (kGroupValues / 2)), _mm512_maskz_cvtepi16_epi8(~__mmask32{0}, pairs));
    for (__mmask64 left = _mm512_cmpeq_epi8_mask(codes, _mm512_set1_epi8(kNoCode)); left != 0; left &= left - 1) {
      const auto index = kBytePlaces[static_cast<std::size_t>(std::countr_zero(left))] / 2U;
      BFloat16 value;
      std::memcpy(&value, tile + index * sizeof value, sizeof value);
      exceptions.push_back({.position = first_position + static_cast<std::uint32_t>(group * kGroupValues) + index, .value = value});
    }
  }
}

LOCKSTEP_TARGET_VBMI void unpack_tiles(const std::byte* packed, int count, const UpperBytes& codes, std::byte* out) {
  // All lanes are wanted; GCC 12 warns of an uninitialized operand in its own header for the forms without a mask, and drops the mask.
  constexpr __mmask64 kAll = ~__mmask64{0};
  // The table four times over: a look-up goes by the lower six bits of a byte, of which the upper two are the next code's.
  const __m512i upper_of = _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes.data())));
  const __m512i nibble_shifts = _mm512_set1_epi64(0x1c1814100c080400);  // of the lower half of each 64 bits, one nibble in each byte
  for (int tile = 0; tile < count; ++tile, packed += kPackedTileBytes) {
    for (std::size_t line = 0; line < kPackedTileBytes; line += kCacheLine) {
      __builtin_prefetch(packed + kPrefetchBytes + line, 0, 2);  // beyond the weight's end lies the next one, or nothing, which does no harm
    }
    for (int group = 0; group < kGroups; ++group, out += 2 * kGroupValues) {
      const __m256i nibbles = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + kTileValues + group * (kGroupValues / 2)));
      const __m512i upper =
          _mm512_maskz_permutexvar_epi8(kAll, _mm512_maskz_multishift_epi64_epi8(kAll, nibble_shifts, _mm512_maskz_cvtepu32_epi64(0xff, nibbles)), upper_of);
      const __m512i lower = _mm512_loadu_si512(packed + group * kGroupValues);
      _mm512_storeu_si512(out, _mm512_unpacklo_epi8(lower, upper));
      _mm512_storeu_si512(out + kGroupValues, _mm512_unpackhi_epi8(lower, upper));
    }
  }
}

}  // namespace lockstep::device::host
