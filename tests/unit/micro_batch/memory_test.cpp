// Goal    After the first walk a context allocates nothing: not per micro-batch, not per task, not per reset.
// Method  Counts operator new over walks that do all a walk can do, on streams with threads and under a narrowed context.
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/micro_batch.hpp"
#include "tests/unit/device/allocation_counter.hpp"

namespace lockstep {
namespace {

template <typename Context>
void walk(Context& context) {
  for (const MicroBatchInfo& info : context.iterate()) {
    info.compute_stream->enqueue([]() -> Status { return {}; }, info.size);
    info.comm_stream->enqueue([]() -> Status { return {}; });
    context.record_output(info.index);
  }
  EXPECT_TRUE(context.sync_streams());
}

TEST(Allocations, ThereAreNoneAfterTheFirstWalkOfAPlainContext) {
  const DPMetadata metadata = DPMetadata::make(4, 0, 64, std::vector<std::int32_t>{64, 3, 0, 90});
  const ForwardContext outer = create_forward_context({.dp_metadata = &metadata});
  const set_forward_context scope(outer);
  StreamManager streams;
  MicroBatchContext<int> context({.batch_size = 64, .micro_batch_size = 4, .stream_manager = &streams});
  walk(context);
  const std::int64_t before = allocation_count();
  for (int i = 0; i < 20; ++i) {
    context.reset(64);
    walk(context);
  }
  EXPECT_EQ(allocation_count(), before);
}

TEST(Allocations, ThereAreNoneAfterTheFirstMicroBatchOfAWalk) {
  const DPMetadata metadata = DPMetadata::make(2, 0, 64, std::vector<std::int32_t>{64, 30});
  const ForwardContext outer = create_forward_context({.dp_metadata = &metadata});
  const set_forward_context scope(outer);
  MicroBatchContext<int> context({.batch_size = 64, .micro_batch_size = 4});
  std::int64_t before = 0;
  for (const MicroBatchInfo& info : context.iterate()) {
    if (info.index == 0) {
      before = allocation_count();
    }
    context.record_output(info.index);
  }
  EXPECT_EQ(allocation_count(), before);
}

TEST(Allocations, ThereAreNoneAfterTheFirstWalkOfAnAdaptiveContext) {
  StreamManager streams;
  AdaptiveMicroBatchContext<int> context({.batch_size = 64, .initial_micro_batch = 4, .min_micro_batch = 4, .max_micro_batch = 4, .stream_manager = &streams});
  walk(context);
  const std::int64_t before = allocation_count();
  for (int i = 0; i < 20; ++i) {
    context.reset(64);
    walk(context);
  }
  EXPECT_EQ(allocation_count(), before);
}

}  // namespace
}  // namespace lockstep
