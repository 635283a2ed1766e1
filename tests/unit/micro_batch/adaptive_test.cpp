// Goal    An adaptive context splits the rows that remain again at the new size, at once, and still covers each row once with outputs in batch order.
// Method  A clock that bodies advance by a cost model; an injected memory probe.
#include <random>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/micro_batch.hpp"
#include "tests/support/manual_clock.hpp"

namespace lockstep {
namespace {

using test::ManualClock;

double no_pressure() {
  return 0;
}

/// Walks and returns the sizes; each row costs `us_per_row`.
std::vector<std::int32_t> walk(AdaptiveMicroBatchContext<int>& context, ManualClock& clock, std::int64_t us_per_row) {
  std::vector<std::int32_t> sizes;
  for (const MicroBatchInfo& info : context.iterate()) {
    sizes.push_back(info.size);
    clock.advance(std::chrono::microseconds(us_per_row * info.size));
    context.record_output(info.start);
  }
  return sizes;
}

TEST(AdaptiveContext, SplitsTheRemainingRowsAgainAtOnce) {
  ManualClock clock;
  AdaptiveMicroBatchContext<int> context({.batch_size = 100, .memory_probe = no_pressure, .clock = &clock});
  EXPECT_EQ(context.num_micro_batches(), 13);
  EXPECT_EQ(walk(context, clock, 500), (std::vector<std::int32_t>{8, 16, 16, 16, 16, 16, 12}));
  EXPECT_EQ(context.num_micro_batches(), 7);
  EXPECT_EQ(context.micro_batch_size(), 16);
  EXPECT_EQ(context.gather_outputs(), (std::vector{0, 8, 24, 40, 56, 72, 88}));
}

TEST(AdaptiveContext, GetsSmallerWhenTheTargetIsMissedByFar) {
  ManualClock clock;
  AdaptiveMicroBatchContext<int> context({.batch_size = 32, .target_time_ms = 2, .memory_probe = no_pressure, .clock = &clock});
  const std::vector<std::int32_t> sizes = walk(context, clock, 1000);
  EXPECT_EQ(sizes[0], 8);
  EXPECT_EQ(sizes[1], 2);
}

TEST(AdaptiveContext, KeepsTheSizeThatItReachedForTheNextBatch) {
  ManualClock clock;
  AdaptiveMicroBatchContext<int> context({.batch_size = 100, .memory_probe = no_pressure, .clock = &clock});
  walk(context, clock, 500);
  context.reset(40);
  EXPECT_EQ(walk(context, clock, 500), (std::vector<std::int32_t>{16, 16, 8}));
  EXPECT_EQ(context.gather_outputs().size(), 3U);
}

TEST(AdaptiveContext, HonoursMemoryPressureWithoutAnyTimeMissed) {
  ManualClock clock;
  AdaptiveMicroBatchContext<int> context({.batch_size = 20, .memory_probe = [] { return 0.85; }, .clock = &clock});
  EXPECT_EQ(walk(context, clock, 1), (std::vector<std::int32_t>{8, 4, 2, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(context.gather_outputs().size(), 9U);
}

TEST(AdaptiveContext, CoversEachRowOnceOverRandomCosts) {
  std::mt19937 random(9);
  ManualClock clock;
  for (int round = 0; round < 200; ++round) {
    const auto batch_size = static_cast<std::int32_t>(random() % 500);
    AdaptiveMicroBatchContext<int> context({.batch_size = batch_size, .memory_probe = [&random] { return random() % 10 == 0 ? 0.9 : 0.1; }, .clock = &clock});
    const DPMetadata metadata = DPMetadata::make(2, 0, batch_size, std::vector<std::int32_t>{batch_size, batch_size / 2});
    const ForwardContext outer = create_forward_context({.dp_metadata = &metadata});
    const set_forward_context scope(outer);
    std::int32_t row = 0;
    std::int32_t others = 0;
    for (const MicroBatchInfo& info : context.iterate()) {
      ASSERT_EQ(info.start, row);
      ASSERT_EQ(get_forward_context().get_num_tokens(), info.size);
      row = info.end;
      others += get_forward_context().dp_metadata->tokens_per_rank()[1];
      clock.advance(std::chrono::microseconds(random() % 40000));
      context.record_output(info.index);
    }
    EXPECT_EQ(row, batch_size);
    EXPECT_EQ(others, batch_size / 2);
    const std::vector<int> outputs = context.gather_outputs();
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      ASSERT_EQ(outputs[i], static_cast<int>(i));
    }
  }
}

TEST(AdaptiveContext, CountsWhatTheBodyLeftOnItsStreams) {
  ManualClock clock;
  StreamManager streams;
  AdaptiveMicroBatchContext<int> context({.batch_size = 24, .stream_manager = &streams, .memory_probe = no_pressure, .clock = &clock});
  for (const MicroBatchInfo& info : context.iterate()) {
    info.compute_stream->enqueue([&clock, size = info.size]() -> Status {
      clock.advance(std::chrono::milliseconds(size));
      return {};
    });
  }
  EXPECT_DOUBLE_EQ(context.info(0).duration_ms(), 8);
  EXPECT_DOUBLE_EQ(context.stats().total_ms, 24);
}

TEST(AdaptiveContext, TakesNoPriority) {
  AdaptiveMicroBatchContext<int> context({.batch_size = 24});
  EXPECT_THROW(static_cast<void>(context.iterate([](const MicroBatchInfo&) { return 0.0; })), std::logic_error);
}

TEST(AdaptiveContext, BadInputIsRefused) {
  EXPECT_THROW(AdaptiveMicroBatchContext<int>({.batch_size = -1}), std::invalid_argument);
  EXPECT_THROW(AdaptiveMicroBatchContext<int>({.initial_micro_batch = 0}), std::invalid_argument);
  EXPECT_THROW(AdaptiveMicroBatchContext<int>({.target_time_ms = -1}), std::invalid_argument);
  EXPECT_THROW(AdaptiveMicroBatchContext<int>({.num_threads = 0}), std::invalid_argument);
}

}  // namespace
}  // namespace lockstep
