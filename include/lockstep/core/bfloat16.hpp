// bfloat16: the 16-bit float of weights, KV cache and everything on the wire.
#pragma once

#include <bit>
#include <cstdint>

namespace lockstep {

/// The upper half of an IEEE float32. A storage type: convert, compute in float, convert back (round to nearest, ties to even).
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    if ((word & 0x7fffffffU) > 0x7f800000U) {
      bits = static_cast<std::uint16_t>((word >> 16U) | 0x40U);  // a NaN stays a NaN: rounding could carry it to infinity
    } else {
      bits = static_cast<std::uint16_t>((word + 0x7fffU + ((word >> 16U) & 1U)) >> 16U);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }
};
static_assert(sizeof(BFloat16) == 2);

}  // namespace lockstep
