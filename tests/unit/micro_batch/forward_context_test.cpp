// Goal    Each micro-batch sees the forward context narrowed to its rows, also in its tasks on streams, and the thread's own comes back afterwards.
// Method  Contexts told apart by virtual_engine; the narrowed token counts are compared with DPMetadata::chunk over random groups.
#include <array>
#include <random>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/micro_batch.hpp"

namespace lockstep {
namespace {

TEST(NarrowedContext, HasTheMicroBatchsTokensAndTheRestOfTheOuterOne) {
  const DPMetadata metadata = DPMetadata::make(3, 1, 10, std::vector<std::int32_t>{4, 10, 15});
  const ForwardContext outer = create_forward_context({.virtual_engine = 7,
                                                       .num_tokens = 10,
                                                       .batch_descriptor = BatchDescriptor{.num_tokens = 16, .num_reqs = 3, .uniform = true},
                                                       .dp_metadata = &metadata,
                                                       .cudagraph_runtime_mode = GraphMode::kFull});
  const set_forward_context scope(outer);
  MicroBatchContext context({.batch_size = 10, .micro_batch_size = 4});
  for (const MicroBatchInfo& info : context.iterate()) {
    const ForwardContext& inner = get_forward_context();
    EXPECT_NE(&inner, &outer);
    EXPECT_EQ(inner.get_num_tokens(), info.size);
    EXPECT_EQ(*inner.dp_metadata, metadata.chunk(info.index, 4));
    EXPECT_EQ(inner.virtual_engine, 7);
    EXPECT_EQ(inner.batch_descriptor, (BatchDescriptor{.num_tokens = 4, .num_reqs = std::nullopt, .uniform = true}));
    EXPECT_EQ(inner.cudagraph_runtime_mode, GraphMode::kFull);
    EXPECT_EQ(inner.start_time, outer.start_time);
  }
  EXPECT_EQ(&get_forward_context(), &outer);
}

TEST(NarrowedContext, HasTheMicroBatchsOwnAttentionMetadataWhereTheOwnerOfTheBatchGivesIt) {
  struct Rows final : AttentionMetadata {
    std::int32_t count = 0;
  };
  Rows all;
  all.count = 5;
  std::array<Rows, 3> slices;
  std::array<AttentionMetadataByLayer, 3> by_layer;
  const AttentionMetadataByLayer whole{{"layer", &all}};
  MicroBatchContext context({.batch_size = 5, .micro_batch_size = 2, .narrow_attention = [&](const MicroBatchInfo& info) {
                               const auto index = static_cast<std::size_t>(info.index);
                               slices[index].count = info.size;
                               by_layer[index] = {{"layer", &slices[index]}};
                               return static_cast<const AttentionMetadataByLayer*>(&by_layer[index]);
                             }});
  const ForwardContext outer = create_forward_context({.attn_metadata = &whole});
  const set_forward_context scope(outer);
  for (const MicroBatchInfo& info : context.iterate()) {
    EXPECT_EQ(static_cast<const Rows&>(get_forward_context().get_attn_metadata("layer")).count, info.size);
  }
  EXPECT_EQ(static_cast<const Rows&>(get_forward_context().get_attn_metadata("layer")).count, 5);
}

TEST(NarrowedContext, ChunksOfAllMicroBatchesAddUpOverRandomGroups) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const int world = static_cast<int>(1 + random() % 6);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(world));
    for (std::int32_t& count : tokens) {
      count = static_cast<std::int32_t>(random() % 50);
    }
    const int rank = static_cast<int>(random() % static_cast<unsigned>(world));
    const std::int32_t own = tokens[static_cast<std::size_t>(rank)];
    const DPMetadata metadata = DPMetadata::make(world, rank, own, tokens);
    const auto size = static_cast<std::int32_t>(1 + random() % 20);
    const ForwardContext outer = create_forward_context({.dp_metadata = &metadata});
    const set_forward_context scope(outer);
    MicroBatchContext context({.batch_size = own, .micro_batch_size = size, .num_micro_batches_min = (metadata.max_tokens() + size - 1) / size});
    std::vector<std::int32_t> sums(tokens.size());
    for (const MicroBatchInfo& info : context.iterate()) {
      const DPMetadata& chunk = *get_forward_context().dp_metadata;
      EXPECT_EQ(chunk, metadata.chunk(info.index, size)) << "world " << world << " rank " << rank << " size " << size;
      EXPECT_EQ(chunk.get_local_tokens(), info.size);
      for (std::size_t i = 0; i < sums.size(); ++i) {
        sums[i] += chunk.tokens_per_rank()[i];
      }
    }
    EXPECT_EQ(sums, tokens);
  }
}

TEST(NarrowedContext, IsRestoredWhenTheBodyThrows) {
  const ForwardContext outer = create_forward_context({.num_tokens = 4});
  const set_forward_context scope(outer);
  MicroBatchContext context({.batch_size = 4, .micro_batch_size = 2});
  const auto body = [&] {
    for ([[maybe_unused]] const MicroBatchInfo& info : context.iterate()) {
      throw std::runtime_error("a layer failed");
    }
  };
  EXPECT_THROW(body(), std::runtime_error);
  EXPECT_EQ(&get_forward_context(), &outer);
}

TEST(NarrowedContext, IsThatOfTheBatchAlsoInsideAnotherMicroBatch) {
  const DPMetadata metadata = DPMetadata::make(2, 0, 6, std::vector<std::int32_t>{6, 3});
  const ForwardContext outer = create_forward_context({.dp_metadata = &metadata});
  const set_forward_context scope(outer);
  MicroBatchContext context({.batch_size = 6, .micro_batch_size = 2});
  const auto first = context.scope(0);
  {
    const auto second = context.scope(1);
    EXPECT_EQ(*get_forward_context().dp_metadata, metadata.chunk(1, 2));
  }
  EXPECT_EQ(*get_forward_context().dp_metadata, metadata.chunk(0, 2));
}

TEST(NarrowedContext, FollowsTasksToTheStreamsThread) {
  const DPMetadata metadata = DPMetadata::make(2, 1, 9, std::vector<std::int32_t>{5, 9});
  const ForwardContext outer = create_forward_context({.dp_metadata = &metadata});
  StreamManager streams;
  std::vector<DPMetadata> seen(5);
  {
    const set_forward_context scope(outer);
    MicroBatchContext context({.batch_size = 9, .micro_batch_size = 2, .stream_manager = &streams});
    for (const MicroBatchInfo& info : context.iterate()) {
      info.compute_stream->enqueue([&out = seen[static_cast<std::size_t>(info.index)]]() -> Status {
        out = *get_forward_context().dp_metadata;
        return {};
      });
    }
  }
  for (std::int32_t i = 0; i < 5; ++i) {
    EXPECT_EQ(seen[static_cast<std::size_t>(i)], metadata.chunk(i, 2));
  }
}

TEST(NarrowedContext, ReachesATaskThatEntersByIndexOnAThreadWithoutContext) {
  const ForwardContext outer = create_forward_context({.virtual_engine = 5});
  MicroBatchContext context({.batch_size = 4, .micro_batch_size = 2});
  {
    const set_forward_context scope(outer);
    const auto first = context.scope(1);
  }
  ASSERT_FALSE(is_forward_context_available());
  {
    const auto again = context.scope(1);
    EXPECT_EQ(get_forward_context().virtual_engine, 5);
    EXPECT_EQ(get_forward_context().get_num_tokens(), 2);
  }
  EXPECT_FALSE(is_forward_context_available());
}

TEST(NarrowedContext, IsNoneWhereThereIsNone) {
  MicroBatchContext context({.batch_size = 4, .micro_batch_size = 2});
  for ([[maybe_unused]] const MicroBatchInfo& info : context.iterate()) {
    EXPECT_FALSE(is_forward_context_available());
  }
}

TEST(NarrowedContext, RowsThatAreNotTheContextsTokensAreRefusedUnlessToldSo) {
  const DPMetadata metadata = DPMetadata::single(12);
  const ForwardContext outer = create_forward_context({.dp_metadata = &metadata});
  const set_forward_context scope(outer);
  MicroBatchContext context({.batch_size = 4, .micro_batch_size = 2});
  EXPECT_THROW(static_cast<void>(context.iterate().begin()), std::logic_error);
  EXPECT_EQ(context.info(0).state, MicroBatchState::kFailed);
  MicroBatchContext rows({.batch_size = 4, .micro_batch_size = 2, .narrow_forward_context = false});
  for ([[maybe_unused]] const MicroBatchInfo& info : rows.iterate()) {
    EXPECT_EQ(&get_forward_context(), &outer);
  }
}

}  // namespace
}  // namespace lockstep
