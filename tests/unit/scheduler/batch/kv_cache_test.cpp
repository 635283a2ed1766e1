// Goal    The KV cache hands out each block to one owner at a time, never more than its memory holds, and each layer's memory is its own.
// Method  A device that only allocates; blocks are counted, and written through to see that no two overlap.
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/scheduler_fixtures.hpp"

namespace lockstep::scheduler {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HeapDevice;
using testing::kTinyBlockBytes;
using testing::kTinySpec;
using testing::make_cache;

TEST(KvCache, BlocksForRoundsUpToWholeBlocks) {
  EXPECT_EQ(KvCache::blocks_for(0), 0);
  EXPECT_EQ(KvCache::blocks_for(1), 1);
  EXPECT_EQ(KvCache::blocks_for(device::kKvBlockTokens), 1);
  EXPECT_EQ(KvCache::blocks_for(device::kKvBlockTokens + 1), 2);
}

TEST(KvCache, HasAsManyBlocksAsTheBytesPayForOverAllLayers) {
  HeapDevice device;
  const std::vector<device::KvCacheSpec> specs{kTinySpec, {.kv_heads = 2, .head_size = 2}};  // 1 + 2 units a block
  const Result<KvCache> cache = KvCache::create(device, specs, 10 * kTinyBlockBytes, 1000);
  ASSERT_TRUE(cache);
  EXPECT_EQ(cache->block_count(), 3);
  EXPECT_EQ(cache->free_count(), 3);
  EXPECT_EQ(cache->layer(0).block_count, 3);
  EXPECT_EQ(cache->layer(1).block_count, 3);
}

TEST(KvCache, HasNoMoreBlocksThanAreUsefulWhenThereIsMemoryForMore) {
  HeapDevice device;
  const std::vector<device::KvCacheSpec> specs{kTinySpec};
  const Result<KvCache> cache = KvCache::create(device, specs, std::int64_t{1} << 40, 5);
  ASSERT_TRUE(cache);
  EXPECT_EQ(cache->block_count(), 5);
}

TEST(KvCache, RefusesMemoryForLessThanOneBlockAndNamesTheBytes) {
  HeapDevice device;
  const std::vector<device::KvCacheSpec> specs{kTinySpec, kTinySpec};
  for (const std::int64_t bytes : {std::int64_t{0}, 2 * kTinyBlockBytes - 1, std::int64_t{-1}}) {
    const Result<KvCache> cache = KvCache::create(device, specs, bytes, 5);
    ASSERT_FALSE(cache) << bytes;
    EXPECT_EQ(cache.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(cache.error().message, HasSubstr(std::to_string(2 * kTinyBlockBytes)));
    EXPECT_THAT(cache.error().message, HasSubstr("--kv-cache-memory"));
  }
}

TEST(KvCache, PassesOnTheDevicesErrorWhenAnyAllocationFails) {
  const std::vector<device::KvCacheSpec> specs{kTinySpec, kTinySpec};
  for (int failing = 0; failing < 4; ++failing) {  // keys and values of two layers
    HeapDevice device(failing);
    const Result<KvCache> cache = KvCache::create(device, specs, 1 << 20, 5);
    ASSERT_FALSE(cache) << failing;
    EXPECT_EQ(cache.error().code, ErrorCode::kResourceExhausted);
  }
}

TEST(KvCache, LayersHaveMemoryOfTheirOwnForEveryBlock) {
  HeapDevice device;
  const std::vector<device::KvCacheSpec> specs{kTinySpec, kTinySpec};
  const Result<KvCache> cache = KvCache::create(device, specs, 2 * 3 * kTinyBlockBytes, 3);
  ASSERT_TRUE(cache);
  const int elements = 3 * device::kKvBlockTokens * 2;  // of keys, and as many of values; the sanitizer sees one too many
  float mark = 1;
  for (int layer = 0; layer < 2; ++layer) {
    for (BFloat16* half : {cache->layer(layer).keys, cache->layer(layer).values}) {
      for (int i = 0; i < elements; ++i) {
        EXPECT_EQ(half[i].bits, 0) << "not zeroed, or written through another pointer";
        half[i] = BFloat16(mark);
      }
      ++mark;
    }
  }
}

TEST(KvCache, TakesNothingWhenFewerBlocksAreFreeThanWanted) {
  HeapDevice device;
  KvCache cache = make_cache(device, 4);
  std::vector<std::int32_t> first;
  ASSERT_TRUE(cache.reserve(3, first));
  std::vector<std::int32_t> second{77};
  EXPECT_FALSE(cache.reserve(2, second));
  EXPECT_THAT(second, ElementsAre(77));
  EXPECT_EQ(cache.free_count(), 1);
  EXPECT_TRUE(cache.reserve(1, second));
  EXPECT_EQ(cache.free_count(), 0);
  EXPECT_TRUE(cache.reserve(0, second));
}

TEST(KvCache, GivesEveryBlockToOneOwnerOnly) {
  HeapDevice device;
  KvCache cache = make_cache(device, 8);
  std::vector<std::int32_t> first;
  std::vector<std::int32_t> second;
  ASSERT_TRUE(cache.reserve(3, first));
  ASSERT_TRUE(cache.reserve(5, second));
  std::set<std::int32_t> all(first.begin(), first.end());
  all.insert(second.begin(), second.end());
  EXPECT_EQ(all, (std::set<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(KvCache, ReleasedBlocksAreHandedOutAgainInTheSameOrder) {
  HeapDevice device;
  KvCache cache = make_cache(device, 8);
  std::vector<std::int32_t> blocks;
  ASSERT_TRUE(cache.reserve(4, blocks));
  const std::vector<std::int32_t> before = blocks;
  cache.release(blocks);
  EXPECT_TRUE(blocks.empty());
  EXPECT_EQ(cache.free_count(), 8);
  ASSERT_TRUE(cache.reserve(4, blocks));
  EXPECT_EQ(blocks, before) << "the pages that are warm already";
}

TEST(KvCacheDeathTest, AbortsWhenABlockIsReleasedTwice) {
  HeapDevice device;
  KvCache cache = make_cache(device, 2);
  std::vector<std::int32_t> blocks;
  ASSERT_TRUE(cache.reserve(1, blocks));
  std::vector<std::int32_t> copy = blocks;
  cache.release(blocks);
  EXPECT_DEATH(cache.release(copy), "released twice");
}

}  // namespace
}  // namespace lockstep::scheduler
