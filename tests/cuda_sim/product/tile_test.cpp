// Goal    The twins by hand, of the tensor cores' instruction and of copies that run while threads compute, do what PTX's documentation says.
// Method  Fragments laid out by the documentation's formulas, element by element, against a plain loop; copies looked at before and after waits; mistakes that
// end.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

// CUDA's language first.
// clang-format off
#include "tests/cuda_sim/twins/language.hpp"

#include "tests/cuda_sim/twins/async_copies.hpp"
#include "tests/cuda_sim/twins/tile_mma.hpp"
// clang-format on

namespace lockstep::device::cuda {
namespace {

using ::cuda_sim::run_grid;

constexpr std::uint32_t kPoisonWord = 0xffffffffU;

::cuda_sim::Grid grid_of(unsigned threads, std::uint64_t seed) {
  return {.kernel = "test", .grid_size = {}, .block_size = {threads}, .seed = seed};
}

std::vector<BFloat16> random_halves(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<BFloat16> values(count);
  std::ranges::generate(values, [&] { return BFloat16(normal(random)); });
  return values;
}

std::uint32_t pair_of(BFloat16 low, BFloat16 high) {
  return low.bits | static_cast<std::uint32_t>(high.bits) << 16U;
}

/// "Matrix Fragments for mma.m16n8k16": element i of A is in row groupID or, for i = 2, 3, 6, 7, in row groupID + 8; in column threadID_in_group * 2 + (i & 1),
/// for i >= 4 plus 8. B: row threadID_in_group * 2 + (i & 1), for i >= 2 plus 8; column groupID.
std::array<BFloat16, 8> a_of_lane(const std::vector<BFloat16>& a, int lane) {
  std::array<BFloat16, 8> elements;
  for (int i = 0; i < 8; ++i) {
    const int row = lane / 4 + (i % 4 >= 2 ? 8 : 0);
    const int column = lane % 4 * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    elements[static_cast<std::size_t>(i)] = a[static_cast<std::size_t>(row * kTileInputs + column)];
  }
  return elements;
}

std::array<BFloat16, 4> b_of_lane(const std::vector<BFloat16>& b, int lane) {
  std::array<BFloat16, 4> elements;
  for (int i = 0; i < 4; ++i) {
    const int row = lane % 4 * 2 + (i & 1) + (i >= 2 ? 8 : 0);
    elements[static_cast<std::size_t>(i)] = b[static_cast<std::size_t>(lane / 4 * kTileInputs + row)];
  }
  return elements;
}

class TileInOrder : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(TileInOrder, TheInstructionIsAPlainLoopForEachWarp) {
  constexpr unsigned kWarps = 2;
  constexpr std::size_t kSums = kTileOutputs * kTileRows;
  const std::vector<BFloat16> a = random_halves(kWarps * kTileOutputs * kTileInputs, 1);
  const std::vector<BFloat16> b = random_halves(kTileRows * kTileInputs, 2);
  std::vector<float> result(kWarps * kSums);
  run_grid(grid_of(kWarps * kWarpLanes, GetParam()), [&] {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    const auto warp = static_cast<std::ptrdiff_t>(threadIdx.x / kWarpLanes);
    const std::vector<BFloat16> own(a.begin() + warp * kTileOutputs * kTileInputs, a.begin() + (warp + 1) * kTileOutputs * kTileInputs);
    const auto x = a_of_lane(own, lane);
    const auto y = b_of_lane(b, lane);
    TileSums sums;
    for (int times = 0; times < 2; ++times) {  // the second adds to the first's sums
      add_tile_product({{pair_of(x[0], x[1]), pair_of(x[2], x[3]), pair_of(x[4], x[5]), pair_of(x[6], x[7])}}, {{pair_of(y[0], y[1]), pair_of(y[2], y[3])}},
                       sums);
    }
    for (int i = 0; i < 4; ++i) {  // C: row groupID, for i >= 2 plus 8; column threadID_in_group * 2 + (i & 1)
      const int row = lane / 4 + (i >= 2 ? 8 : 0);
      result[static_cast<std::size_t>(warp) * kSums + static_cast<std::size_t>(row * kTileRows + lane % 4 * 2 + (i & 1))] = sums.values[i];
    }
  });
  for (std::size_t i = 0; i < result.size(); ++i) {
    float sum = 0.0F;
    for (std::size_t k = 0; k < 2 * kTileInputs; ++k) {
      const auto at = k % kTileInputs;
      sum = std::fma(static_cast<float>(a[i / kTileRows * kTileInputs + at]), static_cast<float>(b[i % kTileRows * kTileInputs + at]), sum);
    }
    EXPECT_EQ(std::bit_cast<std::uint32_t>(result[i]), std::bit_cast<std::uint32_t>(sum)) << "sum " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(AscendingAndRandom, TileInOrder, ::testing::Values(0, 1, 2));

TEST(TileMistake, AnInstructionThatOneLaneLeavesOutIsNamed) {
  EXPECT_DEATH(run_grid(grid_of(kWarpLanes, 0),
                        [] {
                          TileSums sums;
                          if (threadIdx.x != 9) {
                            add_tile_product({}, {}, sums);
                          }
                        }),
               "31 in a warp shuffle and 1 have returned: they wait in vain");
}

alignas(kCopyBytes) constexpr std::array<std::uint32_t, 8> kSource{1, 2, 3, 4, 5, 6, 7, 8};

TEST(AsyncCopies, AreThereAfterTheWaitForThemAndPoisonBefore) {
  run_grid(grid_of(1, 0), [] {
    alignas(kCopyBytes) std::array<std::uint32_t, 12> to{};
    AsyncCopies copies;
    copies.start(to.data(), kSource.data(), true);
    copies.commit();
    copies.start(to.data() + 4, kSource.data() + 4, true);
    copies.commit();
    copies.start(to.data() + 8, kSource.data(), false);
    copies.wait_for_all_but<2>();
    EXPECT_EQ(to, (std::array<std::uint32_t, 12>{kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord,
                                                 kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord}));
    copies.wait_for_all_but<1>();
    EXPECT_EQ(to, (std::array<std::uint32_t, 12>{1, 2, 3, 4, kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord, kPoisonWord,
                                                 kPoisonWord}));
    copies.wait_for_all_but<0>();
    EXPECT_EQ(to[4], 5U);
    EXPECT_EQ(to[8], kPoisonWord) << "it was not committed";
    copies.commit();
    copies.wait_for_all_but<0>();
    EXPECT_EQ(to, (std::array<std::uint32_t, 12>{1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0}));
  });
}

TEST(AsyncCopies, OfAddressesThatAreNoMultipleOfTheirSizeEnd) {
  EXPECT_DEATH(run_grid(grid_of(1, 0),
                        [] {
                          alignas(kCopyBytes) std::array<std::uint32_t, 8> to{};
                          AsyncCopies().start(to.data() + 1, kSource.data(), true);
                        }),
               "expected multiples of 16");
  EXPECT_DEATH(run_grid(grid_of(1, 0),
                        [] {
                          alignas(kCopyBytes) std::array<std::uint32_t, 8> to{};
                          AsyncCopies().start(to.data(), kSource.data() + 2, true);
                        }),
               "expected multiples of 16");
}

TEST(AsyncCopies, ThatNobodyWaitsForEnd) {
  EXPECT_DEATH(run_grid(grid_of(1, 0),
                        [] {
                          alignas(kCopyBytes) std::array<std::uint32_t, 4> to{};
                          AsyncCopies copies;
                          copies.start(to.data(), kSource.data(), true);
                          copies.commit();
                        }),
               "1 asynchronous copies that it has not waited for");
}

}  // namespace
}  // namespace lockstep::device::cuda
