// Goal    Several threads share a batch: each micro-batch goes to one of them, they meet at the barrier, and one that fails never strands the others.
// Method  Real threads that end by themselves or hang the test; nothing is timed. Also run under ThreadSanitizer.
#include <atomic>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "device/micro_batch/cancellable_barrier.hpp"
#include "lockstep/micro_batch.hpp"
#include "tests/support/manual_clock.hpp"

namespace lockstep {
namespace {

using test::ManualClock;

template <typename F>
void run_threads(int count, F body) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&body, i] { body(i); });
  }
}

TEST(Threads, ShareTheMicroBatchesAndMeetAtTheBarrier) {
  constexpr int kThreads = 4;
  StreamManager streams;
  MicroBatchContext<int> context({.batch_size = 400, .micro_batch_size = 2, .num_threads = kThreads, .stream_manager = &streams});
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> walked = 0;
    run_threads(kThreads, [&](int /*thread*/) {
      for (const MicroBatchInfo& info : context.iterate()) {
        info.compute_stream->enqueue([&walked]() -> Status {
          ++walked;
          return {};
        });
        context.record_output(info.start);
      }
      context.wait_barrier();
      EXPECT_EQ(context.stats().completed, 200) << "all had ended before any came through";
    });
    const std::vector<int> outputs = context.gather_outputs();
    EXPECT_EQ(walked, 200);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      EXPECT_EQ(outputs[i], static_cast<int>(2 * i));
    }
    context.reset(400);
  }
}

TEST(Threads, WithStreamsOfTheirOwnDoNotWaitForEachOthersTasks) {
  MicroBatchContext<int> context({.batch_size = 2, .micro_batch_size = 1, .num_threads = 2});
  std::latch both(2);
  run_threads(2, [&](int /*thread*/) {
    for (const MicroBatchInfo& info : context.iterate()) {
      info.compute_stream->enqueue([&both]() -> Status {
        both.arrive_and_wait();  // would hang if the two inline streams were one
        return {};
      });
      context.record_output(info.index);
    }
  });
  EXPECT_EQ(context.gather_outputs(), (std::vector{0, 1}));
}

TEST(Threads, MoreWalksThanThreadsAreRefused) {
  MicroBatchContext context({.batch_size = 2, .num_threads = 2});
  static_cast<void>(context.iterate());
  static_cast<void>(context.iterate());
  EXPECT_THROW(static_cast<void>(context.iterate()), std::logic_error);
}

TEST(Threads, AThrowInOneFreesTheOthersFromTheBarrierWithItsCause) {
  constexpr int kThreads = 4;
  for (int round = 0; round < 20; ++round) {
    MicroBatchContext<int> context({.batch_size = 4, .micro_batch_size = 1, .num_threads = kThreads});
    std::atomic<int> cancelled = 0;
    std::atomic<int> thrown = 0;
    run_threads(kThreads, [&](int /*thread*/) {
      try {
        for (const MicroBatchInfo& info : context.iterate()) {
          if (info.index == 2) {
            throw std::runtime_error("broken on purpose");
          }
        }
        context.wait_barrier();
      } catch (const MicroBatchCancelled& error) {
        EXPECT_NE(std::string(error.what()).find("micro-batch 2 failed"), std::string::npos) << error.what();
        ++cancelled;
      } catch (const std::runtime_error&) {
        ++thrown;
      }
    });
    EXPECT_EQ(thrown, 1);
    EXPECT_EQ(cancelled, kThreads - 1);
    EXPECT_EQ(context.info(2).state, MicroBatchState::kFailed);
    context.reset(4);
    run_threads(kThreads, [&](int /*thread*/) {
      for ([[maybe_unused]] const MicroBatchInfo& info : context.iterate()) {
      }
      context.wait_barrier();
    });
    EXPECT_EQ(context.stats().completed, 4);
  }
}

TEST(Threads, WhateverIsThrownOnEnteringFreesTheOthersFromTheBarrier) {
  const ForwardContext outer = create_forward_context({});
  MicroBatchContext<int> context({.batch_size = 2, .micro_batch_size = 1, .num_threads = 2, .narrow_attention = [](const MicroBatchInfo& info) {
                                    if (info.index == 1) {
                                      throw 7;  // NOLINT: no std::exception, on purpose
                                    }
                                    return static_cast<const AttentionMetadataByLayer*>(nullptr);
                                  }});
  std::atomic<int> cancelled = 0;
  std::atomic<int> thrown = 0;
  run_threads(2, [&](int /*thread*/) {
    const set_forward_context scope(outer);
    try {
      for ([[maybe_unused]] const MicroBatchInfo& info : context.iterate()) {
      }
      context.wait_barrier();
    } catch (const MicroBatchCancelled&) {
      ++cancelled;
    } catch (int) {
      ++thrown;
    }
  });
  EXPECT_EQ(thrown, 1);
  EXPECT_EQ(cancelled, 1);
  EXPECT_EQ(context.info(1).state, MicroBatchState::kFailed);
}

TEST(Threads, CancelFreesThoseAtTheBarrier) {
  MicroBatchContext context({.batch_size = 0, .num_threads = 3});
  std::atomic<int> freed = 0;
  run_threads(3, [&](int thread) {
    if (thread == 0) {
      context.cancel("out of work");
      return;
    }
    try {
      context.wait_barrier();
    } catch (const MicroBatchCancelled& error) {
      EXPECT_STREQ(error.what(), "out of work");
      ++freed;
    }
  });
  EXPECT_EQ(freed, 2);
}

TEST(Threads, EnterOneMicroBatchFromComputeAndCommStreamsAtOnce) {
  const DPMetadata metadata = DPMetadata::make(2, 0, 8, std::vector<std::int32_t>{8, 8});
  const ForwardContext outer = create_forward_context({.dp_metadata = &metadata});
  const set_forward_context scope(outer);
  StreamManager streams({.num_compute_streams = 1, .num_comm_streams = 1});
  MicroBatchContext context({.batch_size = 8, .micro_batch_size = 4, .stream_manager = &streams});
  std::atomic<int> right = 0;
  for (int i = 0; i < 200; ++i) {
    for (StreamHandle* stream : {&streams.compute_stream(0), &streams.comm_stream(0)}) {
      stream->enqueue([&context, &right, index = i % 2]() -> Status {
        const auto entered = context.scope(index);
        right += get_forward_context().get_num_tokens() == 4 && get_forward_context().dp_metadata->get_total_tokens() == 8 ? 1 : 0;
        return {};
      });
    }
  }
  EXPECT_TRUE(streams.synchronize_all());
  EXPECT_EQ(right, 400);
}

TEST(CancellableBarrier, LetsAllThroughPhaseAfterPhase) {
  CancellableBarrier barrier(3);
  std::vector<int> phases(3);
  run_threads(3, [&](int thread) {
    for (int phase = 0; phase < 200; ++phase) {
      phases[static_cast<std::size_t>(thread)] = phase;
      ASSERT_TRUE(barrier.arrive_and_wait(Deadline::after(Duration::max())));
      for (const int other : phases) {
        ASSERT_EQ(other, phase);
      }
      ASSERT_TRUE(barrier.arrive_and_wait(Deadline::after(Duration::max())));
    }
  });
}

TEST(CancellableBarrier, ADeadlineBreaksItForAllUntilReset) {
  CancellableBarrier barrier(2);
  ManualClock clock;
  const Deadline passed = Deadline::after(Duration::zero(), nullptr, clock);
  clock.advance(std::chrono::seconds(1));
  const Status late = barrier.arrive_and_wait(passed);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kTimeout);
  const Status broken = barrier.arrive_and_wait(Deadline::after(Duration::max()));
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, ErrorCode::kCancelled);
  EXPECT_NE(broken.error().message.find("1 of 2 had arrived"), std::string::npos) << broken.error().message;
  barrier.reset();
  run_threads(2, [&](int /*thread*/) { EXPECT_TRUE(barrier.arrive_and_wait(Deadline::after(Duration::max()))); });
}

}  // namespace
}  // namespace lockstep
