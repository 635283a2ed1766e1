// Goal    A block on the host does what one on a device does: barriers, shuffles, shared memory; and kernels that break their rules end with a sentence.
// Method  Small kernels written in the language of the twins, in ascending and in random order of threads.
#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "tests/cuda_sim/twins/language.hpp"

namespace cuda_sim {
namespace {

constexpr unsigned kAll = 0xffffffffU;

Grid grid_of(unsigned blocks, unsigned threads, std::uint64_t seed) {
  return {.kernel = "test", .grid_size = {blocks}, .block_size = {threads}, .seed = seed};
}

class BlockInOrder : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(BlockInOrder, EachThreadRunsOnceAndKnowsItsPlace) {
  const Grid grid{.kernel = "test", .grid_size = {2, 3, 2}, .block_size = {4, 2, 3}, .seed = GetParam()};
  std::vector<int> runs(grid.grid_size.count() * grid.block_size.count());
  run_grid(grid, [&runs] {
    ASSERT_EQ(gridDim.y, 3U);
    ASSERT_EQ(blockDim.z, 3U);
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    ++runs[block * 24 + thread];
  });
  EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
}

TEST_P(BlockInOrder, WhatWasWrittenBeforeABarrierIsThereAfterIt) {
  constexpr unsigned kThreads = 96;
  std::vector<int> seen(kThreads, -1);
  run_grid(grid_of(3, kThreads, GetParam()), [&seen] {
    LOCKSTEP_SHARED(int, values, [kThreads]);
    for (int round = 0; round < 5; ++round) {
      values[threadIdx.x] = static_cast<int>(threadIdx.x) + round;
      __syncthreads();
      seen[threadIdx.x] = values[(threadIdx.x + 41) % kThreads];
      __syncthreads();
    }
  });
  for (unsigned i = 0; i < kThreads; ++i) {
    EXPECT_EQ(seen[i], static_cast<int>((i + 41) % kThreads) + 4);
  }
}

TEST_P(BlockInOrder, ABarrierDoesNotWaitForThreadsThatHaveReturned) {
  int after = 0;
  run_grid(grid_of(1, 64, GetParam()), [&after] {
    if (threadIdx.x >= 40) {
      return;
    }
    __syncthreads();
    ++after;
  });
  EXPECT_EQ(after, 40);
}

TEST_P(BlockInOrder, ShufflesGiveEachLaneTheOtherLanesValue) {
  std::vector<float> sums(70, 0.0F);
  std::vector<int> first(64, -1);
  run_grid(grid_of(1, 64, GetParam()), [&sums, &first] {
    auto sum = static_cast<float>(threadIdx.x);
    for (int distance = 16; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(kAll, sum, distance);
    }
    sums[threadIdx.x] = sum;
    first[threadIdx.x] = __shfl_sync(kAll, static_cast<int>(threadIdx.x), 5);
  });
  EXPECT_EQ(sums[0], 496.0F);
  EXPECT_EQ(sums[31], 496.0F);
  EXPECT_EQ(sums[32], 1520.0F) << "the second warp's own";
  EXPECT_EQ(first[20], 5);
  EXPECT_EQ(first[60], 37);
}

TEST_P(BlockInOrder, SharedMemoryIsPoisonAtFirst) {
  std::vector<std::uint32_t> seen;
  run_grid(grid_of(3, 1, GetParam()), [&seen] {
    LOCKSTEP_SHARED(std::uint32_t, word, [1]);
    seen.push_back(word[0]);
    word[0] = 7;
  });
  EXPECT_EQ(seen, std::vector<std::uint32_t>(3, 0xffffffffU));
}

INSTANTIATE_TEST_SUITE_P(AscendingAndRandom, BlockInOrder, ::testing::Values(0, 1, 2, 3));

TEST(BlockOrder, IsAnotherOneForEachSeedAndTheSameForOne) {
  const auto order = [](std::uint64_t seed) {
    std::vector<unsigned> ran;
    run_grid(grid_of(1, 64, seed), [&ran] { ran.push_back(threadIdx.x); });
    return ran;
  };
  EXPECT_EQ(order(3), order(3));
  EXPECT_NE(order(3), order(4));
}

TEST(KernelMistake, AMissingBarrierShowsInSomeOrder) {
  int wrong = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    run_grid(grid_of(1, 64, seed), [&wrong] {
      LOCKSTEP_SHARED(int, values, [64]);
      values[threadIdx.x] = 1;
      wrong += values[63 - threadIdx.x] == 1 ? 0 : 1;  // no __syncthreads() before
    });
  }
  EXPECT_GT(wrong, 0);
}

TEST(KernelMistake, ABarrierThatNotAllReachIsNamed) {
  EXPECT_DEATH(run_grid(grid_of(1, 64, 0),
                        [] {
                          if (threadIdx.x < 32) {
                            __syncthreads();
                          } else {
                            static_cast<void>(__shfl_sync(kAll, 1, 0));
                            if (threadIdx.x != 33) {
                              static_cast<void>(__shfl_sync(kAll, 1, 0));
                            }
                          }
                        }),
               "kernel test, block .0, 0, 0.: 32 threads are at __syncthreads, 31 in a warp shuffle and 1 have returned");
}

TEST(KernelMistake, AShuffleWithALaneOutsideIsNamed) {
  EXPECT_DEATH(run_grid(grid_of(1, 16, 0), [] { static_cast<void>(__shfl_sync(kAll, 1, 0)); }), "mask 0xffffffff in a warp of lanes 0xffff");
  EXPECT_DEATH(run_grid(grid_of(1, 32, 0), [] { static_cast<void>(__shfl_sync(0xffffU, 1, 20)); }), "shuffles from lane 20");
}

TEST(KernelMistake, LanesWithDifferentMasksAreNamed) {
  EXPECT_DEATH(run_grid(grid_of(1, 32, 0), [] { static_cast<void>(__shfl_sync(threadIdx.x == 9 ? 0x7fffffffU : kAll, 1, 0)); }),
               "lanes of one warp shuffle with masks");
}

}  // namespace
}  // namespace cuda_sim
