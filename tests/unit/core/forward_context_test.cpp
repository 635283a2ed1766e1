// Goal    The context is a per-thread slot with nested scopes: what was there comes back, also through an exception; reading without one is a clear error.
// Method  Contexts told apart by their virtual_engine, on one and on several threads.
#include "lockstep/forward_context.hpp"

#include <cstdlib>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

struct FakeAttentionMetadata final : AttentionMetadata {
  explicit FakeAttentionMetadata(int value) : number(value) {}
  int number;
};

ForwardContext numbered(int number) {
  return create_forward_context({.virtual_engine = number});
}

int current_number() {
  return is_forward_context_available() ? get_forward_context().virtual_engine : -1;
}

static_assert(std::is_constructible_v<set_forward_context, const ForwardContext&>);
static_assert(!std::is_constructible_v<set_forward_context, ForwardContext>, "a scope would borrow a context that is gone");

TEST(ForwardContextSlot, IsEmptyAtFirstAndThrowsWhenRead) {
  EXPECT_FALSE(is_forward_context_available());
  EXPECT_THROW(
      try { static_cast<void>(get_forward_context()); } catch (const std::logic_error& error) {
        EXPECT_NE(std::string(error.what()).find("set_forward_context"), std::string::npos) << error.what();
        throw;
      },
      std::logic_error);
}

TEST(ForwardContextSlot, HoldsTheInnermostScopesContextAndGetsTheOuterOneBack) {
  const ForwardContext outer = numbered(1);
  const ForwardContext inner = numbered(2);
  {
    const set_forward_context outer_scope(outer);
    EXPECT_EQ(&get_forward_context(), &outer);
    {
      const set_forward_context inner_scope(inner);
      EXPECT_EQ(&get_forward_context(), &inner);
    }
    EXPECT_EQ(&get_forward_context(), &outer);
  }
  EXPECT_FALSE(is_forward_context_available());
}

TEST(ForwardContextSlot, IsRestoredWhenAnExceptionLeavesTheScope) {
  const ForwardContext outer = numbered(1);
  const ForwardContext inner = numbered(2);
  const set_forward_context outer_scope(outer);
  try {
    const set_forward_context inner_scope(inner);
    throw std::runtime_error("a layer failed");
  } catch (const std::runtime_error&) {
    EXPECT_EQ(current_number(), 1);
  }
}

TEST(ForwardContextSlot, BelongsToItsThread) {
  const ForwardContext mine = numbered(1);
  const ForwardContext theirs = numbered(2);
  const set_forward_context scope(mine);
  std::promise<void> entered;
  std::promise<void> looked;
  int before = 0;
  int within = 0;
  std::thread other([&] {
    before = current_number();
    const set_forward_context other_scope(theirs);
    entered.set_value();
    looked.get_future().wait();
    within = current_number();
  });
  entered.get_future().wait();
  EXPECT_EQ(current_number(), 1) << "another thread's scope is open";
  looked.set_value();
  other.join();
  EXPECT_EQ(before, -1) << "a new thread starts without a context";
  EXPECT_EQ(within, 2);
}

TEST(ForwardContextSlot, IsSetAndReturnedRaw) {
  const ForwardContext context = numbered(3);
  EXPECT_EQ(_set_forward_context(&context), nullptr);
  EXPECT_EQ(current_number(), 3);
  EXPECT_EQ(_set_forward_context(nullptr), &context);
  EXPECT_FALSE(is_forward_context_available());
}

TEST(ForwardContext, TakesOverAllOptionsAndStartsItsClock) {
  const AttentionMetadataByLayer metadata;
  const std::map<std::string, std::any, std::less<>> kwargs{{"flag", std::any(7)}};
  const DPMetadata dp = DPMetadata::single(3);
  ForwardTimingTracker tracker;
  const TimePoint before = std::chrono::steady_clock::now();
  const ForwardContext context = create_forward_context({.attn_metadata = &metadata,
                                                         .virtual_engine = 2,
                                                         .num_tokens = 5,
                                                         .batch_descriptor = BatchDescriptor{8},
                                                         .dp_metadata = &dp,
                                                         .cudagraph_runtime_mode = GraphMode::kPiecewise,
                                                         .additional_kwargs = &kwargs,
                                                         .timing_tracker = &tracker});
  EXPECT_EQ(context.attn_metadata, &metadata);
  EXPECT_EQ(context.virtual_engine, 2);
  EXPECT_EQ(context.num_tokens, 5);
  EXPECT_EQ(context.batch_descriptor, BatchDescriptor{8});
  EXPECT_EQ(context.dp_metadata, &dp);
  EXPECT_EQ(context.cudagraph_runtime_mode, GraphMode::kPiecewise);
  EXPECT_EQ(std::any_cast<int>(context.additional_kwargs->find("flag")->second), 7);
  EXPECT_EQ(context.timing_tracker, &tracker);
  EXPECT_GE(context.start_time, before);
  const Duration elapsed = context.elapsed_time();
  EXPECT_GE(elapsed, Duration(0));
  EXPECT_LE(elapsed, std::chrono::steady_clock::now() - before);
}

TEST(ForwardContext, TakesItsTokenCountFromTheMostExplicitSource) {
  const DPMetadata dp = DPMetadata::make(2, 1, 3, std::vector<std::int32_t>{9, 3});
  EXPECT_EQ(create_forward_context({.num_tokens = 5, .batch_descriptor = BatchDescriptor{8}, .dp_metadata = &dp}).get_num_tokens(), 5);
  EXPECT_EQ(create_forward_context({.num_tokens = 0, .batch_descriptor = BatchDescriptor{8}, .dp_metadata = &dp}).get_num_tokens(), 0);
  EXPECT_EQ(create_forward_context({.batch_descriptor = BatchDescriptor{8}, .dp_metadata = &dp}).get_num_tokens(), 8);
  EXPECT_EQ(create_forward_context({.dp_metadata = &dp}).get_num_tokens(), 3);
  EXPECT_EQ(create_forward_context({}).get_num_tokens(), 0);
}

TEST(ForwardContext, KnowsWhetherStepsAreCaptured) {
  EXPECT_FALSE(create_forward_context({}).is_cudagraph_enabled());
  EXPECT_TRUE(create_forward_context({.cudagraph_runtime_mode = GraphMode::kPiecewise}).is_cudagraph_enabled());
  EXPECT_TRUE(create_forward_context({.cudagraph_runtime_mode = GraphMode::kFull}).is_cudagraph_enabled());
  EXPECT_EQ(std::min(GraphMode::kFull, GraphMode::kNone), GraphMode::kNone) << "the group's mode is the minimum";
}

TEST(ForwardContext, FindsTheAttentionMetadataOfALayer) {
  const FakeAttentionMetadata shared(1);
  const FakeAttentionMetadata special(2);
  const AttentionMetadataByLayer metadata{{"layers.0", &shared}, {"layers.1", &shared}, {"layers.2", &special}};
  const ForwardContext context = create_forward_context({.attn_metadata = &metadata});
  EXPECT_EQ(&context.get_attn_metadata("layers.1"), &shared);
  EXPECT_EQ(static_cast<const FakeAttentionMetadata&>(context.get_attn_metadata("layers.2")).number, 2);
}

std::string layer_error(const AttentionMetadataByLayer* metadata, std::string_view layer) {
  try {
    static_cast<void>(create_forward_context({.attn_metadata = metadata}).get_attn_metadata(layer));
  } catch (const std::out_of_range& error) {
    return error.what();
  }
  return "found";
}

TEST(ForwardContext, NamesTheLayerAndTheKnownOnesWhenItIsUnknown) {
  const FakeAttentionMetadata shared(1);
  const AttentionMetadataByLayer two{{"layers.0", &shared}, {"layers.1", &shared}};
  EXPECT_EQ(layer_error(&two, "layers.7"), "no attention metadata for layer \"layers.7\"; known layers: layers.0, layers.1");
  EXPECT_EQ(layer_error(nullptr, "layers.0"), "no attention metadata for layer \"layers.0\"; known layers: none");
  const AttentionMetadataByLayer empty_entry{{"layers.0", nullptr}};
  EXPECT_NE(layer_error(&empty_entry, "layers.0"), "found") << "an entry that points nowhere must not be dereferenced";
}

TEST(GetTimingTracker, IsTheCurrentContextsOrElseTheProcessesOwn) {
  ForwardTimingTracker& process_wide = get_timing_tracker();
  ForwardTimingTracker own;
  const ForwardContext with = create_forward_context({.timing_tracker = &own});
  const ForwardContext without = create_forward_context({});
  {
    const set_forward_context scope(with);
    EXPECT_EQ(&get_timing_tracker(), &own);
    const set_forward_context inner(without);
    EXPECT_EQ(&get_timing_tracker(), &process_wide);
  }
  EXPECT_EQ(&get_timing_tracker(), &process_wide);
}

TEST(GetTimingTrackerDeathTest, OutlivesWhatStillRecordsWhenTheProcessEnds) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // in a new process: nobody has asked for the tracker there
  const auto record_at_exit = [] {
    std::atexit([] {  // called after the destructors of all statics that are made later
      get_timing_tracker().record(8, 1.0);
      std::_Exit(get_timing_tracker().get_stats(8)->count == 2 ? 0 : 1);
    });
    get_timing_tracker().record(8, 1.0);
    std::exit(2);  // NOLINT(concurrency-mt-unsafe): one thread
  };
  EXPECT_EXIT(record_at_exit(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace lockstep
