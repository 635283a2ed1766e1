// Goal: the plan of --dry-run is what the group will do: placement, weights by hand-counted tensors, KV cache, the sum of this host.
// Method: made-up models small enough to count by hand.
#include "daemon/preflight/group_plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// One layer of 5 experts and a dense one; every size a different prime or power, so that no two terms can be mistaken.
Prepared small(int world_size) {
  Prepared prepared;
  prepared.launch = {.world_size = world_size, .local_size = world_size, .launcher = "mpirun"};
  prepared.model.name = "small";
  prepared.model.config = {.architecture = "Qwen3MoeForCausalLM",
                           .vocabulary_size = 11,
                           .hidden_size = 8,
                           .layer_count = 2,
                           .query_heads = 2,
                           .kv_heads = 1,
                           .head_size = 4,
                           .context_length = 64,
                           .dense_width = 13,
                           .expert_count = 5,
                           .experts_per_token = 2,
                           .expert_width = 3,
                           .layer_is_sparse = {1, 0}};
  prepared.options.max_num_seqs = 2;
  prepared.bytes_per_weight = 2;
  prepared.bytes_per_large_weight = 2;
  prepared.host_memory_bytes = 1 << 20;
  return prepared;
}

TEST(GroupPlan, DealsExpertsAndCountsWeightsOfEachRank) {
  const GroupPlan plan = make_group_plan(small(2));
  ASSERT_EQ(plan.ranks.size(), 2U);
  EXPECT_THAT(plan.ranks[0].experts, ElementsAre(0, 1, 2));
  EXPECT_THAT(plan.ranks[1].experts, ElementsAre(3, 4));
  constexpr std::int64_t kMatrices = 2 * (8 * 8 + 2 * 4 * 8 + 8 * 8)  // q, k and v, o of both layers
                                     + 5 * 8                          // router
                                     + 3 * 13 * 8                     // dense layer
                                     + 11 * 8;                        // output layer
  constexpr std::int64_t kVectors = 2 * (8 + 8 + 4 + 4) + 8;          // norms
  constexpr std::int64_t kShared = kMatrices * 2 + kVectors * 4 + 11 * 8 * 2;
  constexpr std::int64_t kExpert = 3 * 3 * 8 * 2;
  EXPECT_EQ(plan.ranks[0].weight_bytes, kShared + 3 * kExpert);
  EXPECT_EQ(plan.ranks[1].weight_bytes, kShared + 2 * kExpert);
}

TEST(GroupPlan, TiedEmbeddingsArePackedOnceMore) {
  Prepared prepared = small(1);
  const std::int64_t untied = make_group_plan(prepared).ranks[0].weight_bytes;
  prepared.model.config.tied_embeddings = true;
  EXPECT_EQ(make_group_plan(prepared).ranks[0].weight_bytes, untied);
}

TEST(GroupPlan, LargeMatricesAreCountedAsTheDeviceHoldsThemAndSmallOnesAsBefore) {
  Prepared prepared = small(1);
  prepared.model.config.expert_width = kLargeMatrixWeights / 8 - 1;  // of hidden size 8: one row less than large
  const std::int64_t plain = make_group_plan(prepared).ranks[0].weight_bytes;
  prepared.bytes_per_large_weight = 1.5;
  EXPECT_EQ(make_group_plan(prepared).ranks[0].weight_bytes, plain);
  prepared.model.config.expert_width += 1;
  constexpr std::int64_t kExperts = 5 * 3 * kLargeMatrixWeights;  // in one layer: gate, up and down of each
  EXPECT_EQ(make_group_plan(prepared).ranks[0].weight_bytes, plain - 5 * 3 * (kLargeMatrixWeights - 8) * 2 + kExperts * 3 / 2);
}

TEST(GroupPlan, KvCacheHoldsNoMoreThanRequestsCanUse) {
  const GroupPlan plan = make_group_plan(small(2));
  EXPECT_EQ(plan.kv_tokens, 2 * 64);  // 2 requests of the whole context
  EXPECT_EQ(plan.kv_blocks, 8);
  EXPECT_EQ(plan.kv_cache_bytes, 2 * 64 * 2 * 4 * 2 * 2);  // tokens, layers, head size, keys and values, 2 bytes
  EXPECT_EQ(plan.host_bytes, plan.ranks[0].weight_bytes + plan.ranks[1].weight_bytes + 2 * plan.kv_cache_bytes);
}

TEST(GroupPlan, MemoryOfTheHostCountsOnlyItsRanks) {
  Prepared prepared = small(4);
  prepared.launch.rank = 2;
  prepared.launch.local_size = 2;
  const GroupPlan plan = make_group_plan(prepared);
  EXPECT_EQ(plan.host_bytes, plan.ranks[2].weight_bytes + plan.ranks[3].weight_bytes + 2 * plan.kv_cache_bytes);
  EXPECT_TRUE(check_memory(plan, prepared));
  prepared.host_memory_bytes = plan.host_bytes - 1;
  const Status status = check_memory(plan, prepared);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("the 2 ranks on this host take"));
  EXPECT_THAT(status.error().message, HasSubstr("--kv-cache-memory"));
}

TEST(GroupPlan, ADeviceWithItsOwnMemoryHoldsOneRankWhateverTheHostHas) {
  Prepared prepared = small(4);
  prepared.host_memory_bytes = 1;
  const GroupPlan plan = make_group_plan(prepared);
  EXPECT_EQ(plan.device_bytes, plan.ranks[0].weight_bytes + plan.kv_cache_bytes) << "the first ranks have the most experts";
  prepared.device_memory_bytes = plan.device_bytes;
  EXPECT_TRUE(check_memory(plan, prepared));
  EXPECT_THAT(plan_text(plan, prepared), HasSubstr("each device: its rank takes"));
  prepared.device_memory_bytes = plan.device_bytes - 1;
  const Status status = check_memory(plan, prepared);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(status.error().message, HasSubstr("its device has"));
  EXPECT_THAT(status.error().message, HasSubstr("--kv-cache-memory"));
}

TEST(GroupPlan, TextHasOneLineARank) {
  const Prepared prepared = small(7);
  const std::string text = plan_text(make_group_plan(prepared), prepared);
  EXPECT_THAT(text, HasSubstr("7 ranks, started by mpirun"));
  EXPECT_THAT(text, ::testing::ContainsRegex("\n4 .*  4\n5 .*  none\n6 .*  none\n"));
}

TEST(GroupPlan, RangesAreShort) {
  EXPECT_EQ(ranges_text({}), "none");
  EXPECT_EQ(ranges_text({3}), "3");
  EXPECT_EQ(ranges_text({0, 1, 2, 5, 7, 8}), "0-2, 5, 7-8");
}

}  // namespace
}  // namespace lockstep::daemon
