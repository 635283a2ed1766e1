// Goal    Outputs come out in batch order whatever the order they came in; a missing one, a second one, a throw and a stream's error are each a clear error.
// Method  Outputs that tell their index, recorded in random order, by the walk and by tasks on streams.
#include <algorithm>
#include <any>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/micro_batch.hpp"

namespace lockstep {
namespace {

template <typename Exception, typename F>
std::string message_of(F call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return "no exception";
}

TEST(Outputs, AreGatheredInBatchOrderWhateverTheOrderOfRecording) {
  std::mt19937 random(2);
  for (int round = 0; round < 100; ++round) {
    const auto batch_size = static_cast<std::int32_t>(random() % 60);
    MicroBatchContext<int> context({.batch_size = batch_size, .micro_batch_size = static_cast<std::int32_t>(1 + random() % 9)});
    std::vector<double> priorities(static_cast<std::size_t>(context.num_micro_batches()));
    std::generate(priorities.begin(), priorities.end(), [&random] { return static_cast<double>(random() % 4); });
    for (const MicroBatchInfo& info : context.iterate([&](const MicroBatchInfo& i) { return priorities[static_cast<std::size_t>(i.index)]; })) {
      context.record_output(info.index);
    }
    std::vector<int> expected(priorities.size());
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(context.gather_outputs(), expected);
  }
}

TEST(Outputs, OfAnyTypeAreTheDefault) {
  MicroBatchContext context({.batch_size = 2, .micro_batch_size = 1});
  for (const MicroBatchInfo& info : context.iterate()) {
    context.record_output(info.index == 0 ? std::any(7) : std::any(std::string("seven")));
  }
  const std::vector<std::any> outputs = context.gather_outputs();
  EXPECT_EQ(std::any_cast<int>(outputs[0]), 7);
  EXPECT_EQ(std::any_cast<std::string>(outputs[1]), "seven");
}

TEST(Outputs, ConcatenateInBatchOrder) {
  MicroBatchContext<std::vector<int>> context({.batch_size = 7, .micro_batch_size = 3});
  for (const MicroBatchInfo& info : context.iterate([](const MicroBatchInfo& i) { return i.index; })) {
    std::vector<int> rows(static_cast<std::size_t>(info.size));
    std::iota(rows.begin(), rows.end(), info.start);
    context.record_output(std::move(rows));
  }
  EXPECT_EQ(context.gather_and_concat(), (std::vector{0, 1, 2, 3, 4, 5, 6}));
}

TEST(Outputs, ThatAreViewsLeaveWhatTheyViewAlone) {
  std::vector<std::string> rows{"first", "second", "third"};
  MicroBatchContext<std::span<std::string>> context({.batch_size = 3, .micro_batch_size = 2});
  for (auto [info, view] : context.iterate_with_data(rows)) {
    context.record_output(view);
  }
  EXPECT_EQ(context.gather_and_concat(), (std::vector<std::string>{"first", "second", "third"}));
  EXPECT_EQ(rows, (std::vector<std::string>{"first", "second", "third"}));
}

/// Its second move throws: the one into the context, after the one into the call.
class ThrowsOnTheWay {
 public:
  explicit ThrowsOnTheWay(int moves_left) : moves_left_(moves_left) {}
  ThrowsOnTheWay(ThrowsOnTheWay&& other) : moves_left_(other.moves_left_ - 1) {  // NOLINT: throws on purpose
    if (moves_left_ < 0) {
      throw std::domain_error("cannot be moved");
    }
  }
  ThrowsOnTheWay& operator=(ThrowsOnTheWay&&) = delete;

 private:
  int moves_left_;
};

TEST(Outputs, OneThatCannotBeKeptIsMissingAndItsMicroBatchFailed) {
  MicroBatchContext<ThrowsOnTheWay> context({.batch_size = 1});
  {
    const auto scope = context.scope(0);
    EXPECT_THROW(context.record_output(ThrowsOnTheWay(1)), std::domain_error);
  }
  EXPECT_EQ(context.info(0).state, MicroBatchState::kFailed);
  EXPECT_EQ(message_of<std::logic_error>([&] { static_cast<void>(context.gather_outputs()); }), "no outputs: of 1 micro-batches these failed: 0");
}

TEST(Outputs, AMissingOneIsNamedAndItsMicroBatchFailed) {
  MicroBatchContext<int> context({.batch_size = 3, .micro_batch_size = 1});
  for (const MicroBatchInfo& info : context.iterate()) {
    if (info.index != 1) {
      context.record_output(0);
    }
  }
  EXPECT_NE(message_of<std::logic_error>([&] { static_cast<void>(context.gather_outputs()); }).find("recorded none: 1"), std::string::npos);
  EXPECT_EQ(context.info(1).state, MicroBatchState::kFailed);
  EXPECT_EQ(context.info(2).state, MicroBatchState::kCompleted);
}

TEST(Outputs, ASecondOneForAnIndexIsRefusedAndItsMicroBatchFailed) {
  MicroBatchContext<int> context({.batch_size = 2, .micro_batch_size = 1});
  for ([[maybe_unused]] const MicroBatchInfo& info : context.iterate()) {
    context.record_output(0);
  }
  EXPECT_NE(message_of<std::logic_error>([&] { context.record_output(1, 1); }).find("second output for micro-batch 1"), std::string::npos);
  EXPECT_EQ(context.info(1).state, MicroBatchState::kFailed);
  EXPECT_NE(message_of<std::logic_error>([&] { static_cast<void>(context.gather_outputs()); }).find("failed: 1"), std::string::npos);
}

TEST(Outputs, NeedAMicroBatchThatIsOrWasEntered) {
  MicroBatchContext<int> context({.batch_size = 2, .micro_batch_size = 1});
  EXPECT_THROW(context.record_output(0), std::logic_error);
  EXPECT_THROW(context.record_output(0, 0), std::logic_error);
  EXPECT_THROW(context.record_output(0, 2), std::out_of_range);
  const auto outer = context.scope(0);
  {
    const auto inner = context.scope(1);
    context.record_output(11);
  }
  context.record_output(10);
  EXPECT_EQ(context.gather_outputs(), (std::vector{10, 11}));
}

TEST(Outputs, AreGatheredOnceUntilReset) {
  MicroBatchContext<int> context({.batch_size = 2, .micro_batch_size = 2});
  for (int round = 0; round < 3; ++round) {
    for ([[maybe_unused]] const MicroBatchInfo& info : context.iterate()) {
      context.record_output(round);
    }
    EXPECT_EQ(context.gather_outputs(), (std::vector{round}));
    EXPECT_THROW(static_cast<void>(context.gather_outputs()), std::logic_error);
    context.reset(2);
  }
}

TEST(Outputs, AThrowInTheLoopFailsItsMicroBatchAndEndsTheWalk) {
  MicroBatchContext<int> context({.batch_size = 3, .micro_batch_size = 1});
  const auto body = [&context] {
    for (const MicroBatchInfo& info : context.iterate()) {
      if (info.index == 1) {
        throw std::runtime_error("the model failed");
      }
      context.record_output(info.index);
    }
  };
  EXPECT_EQ(message_of<std::runtime_error>(body), "the model failed");
  EXPECT_EQ(context.info(0).state, MicroBatchState::kCompleted);
  EXPECT_EQ(context.info(1).state, MicroBatchState::kFailed);
  EXPECT_EQ(context.info(2).state, MicroBatchState::kPending);
  EXPECT_NE(message_of<MicroBatchCancelled>([&] { static_cast<void>(context.scope(2)); }).find("micro-batch 1 failed"), std::string::npos);
  EXPECT_NE(message_of<std::logic_error>([&] { static_cast<void>(context.gather_outputs()); }).find("failed: 1"), std::string::npos);
  context.reset(1);
  for ([[maybe_unused]] const MicroBatchInfo& info : context.iterate()) {
    context.record_output(5);
  }
  EXPECT_EQ(context.gather_outputs(), (std::vector{5}));
}

TEST(Outputs, MayBeRecordedByTasksOnStreams) {
  StreamManager streams;
  MicroBatchContext<int> context({.batch_size = 40, .micro_batch_size = 2, .stream_manager = &streams});
  for (const MicroBatchInfo& info : context.iterate()) {
    info.compute_stream->enqueue([&context, index = info.index]() -> Status {
      context.record_output(index, index);
      return {};
    });
  }
  std::vector<int> expected(20);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(context.gather_outputs(), expected);
}

TEST(Outputs, AFailedStreamFailsItsMicroBatchesAndIsNamed) {
  StreamManager streams({.num_compute_streams = 2, .num_comm_streams = 1});
  MicroBatchContext<int> context({.batch_size = 4, .micro_batch_size = 1, .stream_manager = &streams});
  for (const MicroBatchInfo& info : context.iterate()) {
    info.compute_stream->enqueue([index = info.index]() -> Status { return index == 0 ? Status(Error{ErrorCode::kInternal, "bad kernel"}) : Status(); });
    context.record_output(0);
  }
  EXPECT_NE(message_of<std::runtime_error>([&] { static_cast<void>(context.gather_outputs()); }).find("bad kernel"), std::string::npos);
  EXPECT_EQ(context.info(0).state, MicroBatchState::kFailed);
  EXPECT_EQ(context.info(1).state, MicroBatchState::kCompleted);
  EXPECT_EQ(context.info(2).state, MicroBatchState::kFailed) << "it was behind the failed task on the same stream";
}

TEST(Outputs, LeavingTheContextWaitsForItsStreams) {
  StreamManager streams;
  int ran = 0;  // plain: the destructor's wait orders the stream's write before our read
  {
    MicroBatchContext<int> context({.batch_size = 1, .stream_manager = &streams});
    for (const MicroBatchInfo& info : context.iterate()) {
      for (int i = 0; i < 100; ++i) {
        info.comm_stream->enqueue([&ran]() -> Status {
          ++ran;
          return {};
        });
      }
    }
  }
  EXPECT_EQ(ran, 100);
}

TEST(Streams, AreTakenInTurnOrByLoadAsAskedFor) {
  StreamManager streams({.num_compute_streams = 2, .num_comm_streams = 2, .inline_streams = true});
  MicroBatchContext turns({.batch_size = 4, .micro_batch_size = 1, .stream_manager = &streams});
  for (const MicroBatchInfo& info : turns.iterate()) {
    EXPECT_EQ(info.compute_stream, &streams.compute_stream(static_cast<std::size_t>(info.index % 2)));
    EXPECT_EQ(info.comm_stream, &streams.comm_stream(static_cast<std::size_t>(info.index % 2)));
  }
  MicroBatchContext loads({.batch_size = 4, .micro_batch_size = 1, .stream_manager = &streams, .stream_policy = StreamPolicy::least_loaded});
  const StreamHandle::Outstanding busy(streams.compute_stream(0), 1);
  for (const MicroBatchInfo& info : loads.iterate()) {
    EXPECT_EQ(info.compute_stream, &streams.compute_stream(1));
  }
}

}  // namespace
}  // namespace lockstep
