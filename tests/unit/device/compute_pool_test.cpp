// Goal    A pool computes every unit of a run once, whoever takes it, and `run` returns only then; ops give the same bits however many threads share them.
// Method  Counting units over many runs of changing sizes, from one caller and from several at once; products and attention on devices of one and four cores.
#include "device/host/compute_pool.hpp"

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/unit/device/ops_fixture.hpp"

namespace lockstep::device::host {
namespace {

std::unique_ptr<ComputePool> make_pool(int size) {
  auto pool = ComputePool::create(size);
  EXPECT_TRUE(pool);
  return std::move(*pool);
}

TEST(ComputePool, EveryUnitIsComputedOnceBeforeRunReturns) {
  for (const int size : {1, 2, 5}) {
    const auto pool = make_pool(size);
    EXPECT_EQ(pool->size(), size);
    for (std::int64_t units = 0; units < 200; ++units) {
      std::vector<int> computed(static_cast<std::size_t>(units), 0);  // plain: each unit is one thread's, and `run` orders them before what follows
      pool->run(units, [&](std::int64_t unit, std::size_t /*participant*/) { ++computed[static_cast<std::size_t>(unit)]; });
      ASSERT_EQ(computed, std::vector<int>(static_cast<std::size_t>(units), 1)) << units << " units, size " << size;
    }
  }
}

TEST(ComputePool, TheLargestRunIsComputedWhole) {
  const auto pool = make_pool(3);
  std::atomic<std::int64_t> sum = 0;
  pool->run(ComputePool::kUnitsMax, [&](std::int64_t unit, std::size_t /*participant*/) { sum.fetch_add(unit, std::memory_order_relaxed); });
  EXPECT_EQ(sum.load(), ComputePool::kUnitsMax * (ComputePool::kUnitsMax - 1) / 2);
}

TEST(ComputePool, CallersAtTheSameTimeEachGetTheirOwnRun) {
  const auto pool = make_pool(2);
  std::vector<int> failures(3, 0);
  {
    std::vector<std::jthread> callers;
    for (int& failure : failures) {
      callers.emplace_back([&pool, &failure] {
        for (int repeat = 0; repeat < 500; ++repeat) {
          std::vector<int> computed(17, 0);
          pool->run(17, [&](std::int64_t unit, std::size_t /*participant*/) { ++computed[static_cast<std::size_t>(unit)]; });
          failure += computed == std::vector<int>(17, 1) ? 0 : 1;
        }
      });
    }
  }
  EXPECT_EQ(failures, std::vector<int>(3, 0));
}

class SharedOps : public OpsFixture {};

TEST_F(SharedOps, ProductsAreTheSameBitsHoweverManyThreadsShareThem) {
  const auto device = make_device("cpu", {.core_count = 4});
  ASSERT_TRUE(device);
  const auto shared = (*device)->make_ops();
  ASSERT_TRUE(shared);
  constexpr std::int64_t kOutput = 1100;  // the last block is no whole one
  constexpr std::int64_t kInput = 500;    // nor is the last tile of inputs
  const std::vector<std::int32_t> offsets{0, 1, 1, 21, 40};
  const auto x = random_bfloat16(40 * kInput);
  std::vector<WeightHandle> alone;
  std::vector<WeightHandle> together;
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    const auto values = random_bfloat16(kOutput * kInput, 0.1F);
    const MatrixSource source{.type = DataType::kBFloat16, .data = std::as_bytes(std::span(values)).data(), .rows = kOutput, .columns = kInput};
    alone.push_back(*ops_->pack_weight(source));
    together.push_back(*(*shared)->pack_weight(source));
  }
  std::vector<float> expected(40 * kOutput);
  std::vector<float> out(40 * kOutput);
  for (const std::int64_t rows : {1, 7, 33, 40}) {
    ops_->matmul(*stream_, x.data(), alone[0], rows, expected.data());
    (*shared)->matmul(*stream_, x.data(), together[0], rows, out.data());
    EXPECT_TRUE(same_bits(expected, out)) << rows;
  }
  ops_->grouped_matmul(*stream_, x.data(), {.offsets = offsets, .weights = alone}, expected.data());
  (*shared)->grouped_matmul(*stream_, x.data(), {.offsets = offsets, .weights = together}, out.data());
  EXPECT_TRUE(same_bits(expected, out));
}

TEST_F(SharedOps, AttentionIsTheSameBitsHoweverManyThreadsShareIt) {
  const auto device = make_device("cpu", {.core_count = 4});
  ASSERT_TRUE(device);
  const auto shared = (*device)->make_ops();
  ASSERT_TRUE(shared);
  constexpr AttentionShape kShape{.query_heads = 16, .kv_heads = 4, .head_size = 64};
  constexpr std::int32_t kBlocks = 8;
  constexpr std::size_t kHalf = std::size_t{kBlocks} * 4 * kKvBlockTokens * 64;
  std::vector<BFloat16> keys = random_bfloat16(kHalf);
  std::vector<BFloat16> values = random_bfloat16(kHalf);
  const KvCacheLayer cache{.keys = keys.data(), .values = values.data(), .block_count = kBlocks};
  std::vector<std::int32_t> tables(2 * kBlocks);  // of two sequences, which may share blocks: they are only read
  for (std::size_t i = 0; i < tables.size(); ++i) {
    tables[i] = static_cast<std::int32_t>(i) % kBlocks;
  }
  std::vector<std::int32_t> positions(60);
  std::iota(positions.begin(), positions.end(), 60);
  std::vector<std::int32_t> sequences(positions.size(), 0);
  positions.push_back(7);
  sequences.push_back(1);
  const PagedRows rows{.positions = positions, .sequences = sequences, .block_tables = tables, .blocks_per_table = kBlocks};
  const auto q = random_floats(positions.size() * 16 * 64);
  std::vector<BFloat16> expected(q.size());
  std::vector<BFloat16> out(q.size());
  ops_->paged_attention(*stream_, kShape, rows, q.data(), cache, expected.data());
  (*shared)->paged_attention(*stream_, kShape, rows, q.data(), cache, out.data());
  EXPECT_TRUE(same_bits(expected, out));
}

}  // namespace
}  // namespace lockstep::device::host
