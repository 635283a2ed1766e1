// Goal    A batch leaves when it is full, when its first item has waited the timeout, or when nothing runs; never later, never twice, in order.
// Method  One thread steps the event loop, a timer turned by hand, batches that end when the test says so.
#include <deque>

#include "tests/unit/microbatcher/fixture.hpp"

namespace lockstep::test {
namespace {

using boost::asio::awaitable;
using std::chrono::microseconds;

TEST_F(AsyncMicrobatcherTest, ABatchLeavesWhenItIsFull) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.max_batch_size = 3, .dispatch_when_idle = false, .timer = timer_});
  std::deque<Ending> endings(3);
  batcher.submit(1, endings[0].handler());
  batcher.submit(2, endings[1].handler());
  step();
  EXPECT_TRUE(batches_.empty());
  batcher.submit(3, endings[2].handler());
  step();
  EXPECT_EQ(batches_, (Batches{{1, 2, 3}}));
  EXPECT_EQ(endings[0].value, 10);
  EXPECT_EQ(endings[2].value, 30);
  EXPECT_FALSE(timer_->is_armed());
}

TEST_F(AsyncMicrobatcherTest, ABatchLeavesWhenItsFirstItemHasWaitedTheTimeout) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.batch_wait_timeout = microseconds(2000), .dispatch_when_idle = false, .timer = timer_});
  std::deque<Ending> endings(2);
  batcher.submit(1, endings[0].handler());
  timer_->advance(microseconds(1500));
  batcher.submit(2, endings[1].handler());
  timer_->advance(microseconds(499));
  step();
  EXPECT_TRUE(batches_.empty());
  timer_->advance(microseconds(1));
  step();
  EXPECT_EQ(batches_, (Batches{{1, 2}}));
  const BatchStats stats = batcher.stats();
  EXPECT_DOUBLE_EQ(stats.total_wait_ms, 2.5);
  EXPECT_DOUBLE_EQ(stats.avg_wait_time_ms(), 1.25);
}

TEST_F(AsyncMicrobatcherTest, TheTimeoutOfTheNextItemCountsFromItsOwnSubmitWhenTheFirstIsCancelled) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.batch_wait_timeout = microseconds(2000), .dispatch_when_idle = false, .timer = timer_});
  std::deque<Ending> endings(2);
  boost::asio::cancellation_signal signal;
  batcher.submit(1, boost::asio::bind_cancellation_slot(signal.slot(), endings[0].handler()));
  timer_->advance(microseconds(1500));
  batcher.submit(2, endings[1].handler());
  signal.emit(boost::asio::cancellation_type::terminal);
  timer_->advance(microseconds(1999));
  step();
  EXPECT_TRUE(batches_.empty());
  timer_->advance(microseconds(1));
  step();
  EXPECT_EQ(batches_, (Batches{{2}}));
  EXPECT_TRUE(is_aborted(endings[0].error));
}

TEST_F(AsyncMicrobatcherTest, ALoneItemLeavesAtOnceWhenNothingRuns) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.timer = timer_});
  Ending ending;
  batcher.submit(7, ending.handler());
  EXPECT_EQ(ending.calls, 0) << "a handler must not run inside submit";
  step();
  EXPECT_EQ(ending.value, 70);
  EXPECT_EQ(timer_->armed_count(), 0);
  EXPECT_EQ(batcher.stats().total_wait_ms, 0);
}

TEST_F(AsyncMicrobatcherTest, ItemsOfOneTurnOfTheLoopShareABatchWhenNothingRuns) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.timer = timer_});
  std::deque<Ending> endings(3);
  for (int i = 0; i < 3; ++i) {
    batcher.submit(i, endings[static_cast<std::size_t>(i)].handler());
  }
  step();
  EXPECT_EQ(batches_, (Batches{{0, 1, 2}}));
}

TEST_F(AsyncMicrobatcherTest, ItemsGatherWhileABatchRunsAndLeaveInOrderAtMostMaxBatchSizeTogether) {
  ParkedBatches parked(io_);
  IntMicrobatcher batcher(io_.get_executor(), parked.fn(), {.max_batch_size = 3, .timer = timer_});
  std::deque<Ending> endings(6);
  for (int i = 0; i < 6; ++i) {
    batcher.submit(i, endings[static_cast<std::size_t>(i)].handler());
    step();
  }
  EXPECT_EQ(parked.batches(), (Batches{{0}}));
  parked.release();
  step();
  EXPECT_EQ(parked.batches(), (Batches{{0}, {1, 2, 3}}));
  EXPECT_EQ(endings[0].value, 0);
  EXPECT_EQ(endings[0].calls, 1);
  EXPECT_EQ(endings[1].calls, 0);
  parked.release();
  step();
  parked.release();
  step();
  EXPECT_EQ(parked.batches(), (Batches{{0}, {1, 2, 3}, {4, 5}}));
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(endings[static_cast<std::size_t>(i)].value, i * 10);
    EXPECT_EQ(endings[static_cast<std::size_t>(i)].calls, 1);
  }
  EXPECT_EQ(batcher.stats().max_batch_size, 3U);
}

TEST_F(AsyncMicrobatcherTest, AnswersComeBeforeTheNextBatchRunsWhereHandlersRunOnItsExecutor) {
  std::string order;
  const auto run_four = [&](auto fn) {
    IntMicrobatcher batcher(io_.get_executor(), fn, {.max_batch_size = 2, .timer = timer_});
    order.clear();
    for (int i = 0; i < 4; ++i) {
      batcher.submit(i, [&](const std::exception_ptr&, int) { order += 'a'; });
    }
    step();
    return order;
  };
  EXPECT_EQ(run_four([&](std::vector<int> items) {
              order += 'b';
              return items;
            }),
            "baabaa");
  EXPECT_EQ(run_four([&](std::vector<int> items) -> awaitable<std::vector<int>> {
              order += 'b';
              co_return items;
            }),
            "baabaa");
}

TEST_F(AsyncMicrobatcherTest, ALoopHasNothingLeftToDoAfterTheLastOfManyBatchesOfAnAwaitableFunction) {
  IntMicrobatcher batcher(io_.get_executor(), [](std::vector<int> items) -> awaitable<std::vector<int>> { co_return items; }, {.max_batch_size = 2});
  for (int round = 0; round < 2; ++round) {  // again after it was idle
    std::deque<Ending> endings(7);
    for (std::size_t i = 0; i < endings.size(); ++i) {
      batcher.submit(static_cast<int>(i), endings[i].handler());
    }
    io_.restart();
    io_.run();  // returns
    for (std::size_t i = 0; i < endings.size(); ++i) {
      EXPECT_EQ(endings[i].calls, 1);
      EXPECT_EQ(endings[i].value, static_cast<int>(i));
    }
  }
  EXPECT_EQ(batcher.stats().total_batches, 8U);
}

TEST_F(AsyncMicrobatcherTest, AnItemWhoseTimeoutPassedWhileABatchRanLeavesWhenThatEnds) {
  ParkedBatches parked(io_);
  IntMicrobatcher batcher(io_.get_executor(), parked.fn(), {.batch_wait_timeout = microseconds(100), .dispatch_when_idle = false, .timer = timer_});
  std::deque<Ending> endings(2);
  batcher.submit(1, endings[0].handler());
  timer_->advance(microseconds(100));
  step();
  batcher.submit(2, endings[1].handler());
  timer_->advance(microseconds(100));
  step();
  EXPECT_EQ(parked.batches(), (Batches{{1}}));
  parked.release();
  step();
  EXPECT_EQ(parked.batches(), (Batches{{1}, {2}}));
  parked.release();
  step();
  EXPECT_EQ(endings[1].value, 20);
}

TEST_F(AsyncMicrobatcherTest, TheBatchFunctionMaySubmit) {
  Ending inner;
  std::function<void()> submit_inner;
  IntMicrobatcher batcher(io_.get_executor(),
                          [&](std::vector<int> items) {
                            if (items.front() == 1) {
                              submit_inner();
                            }
                            return items;
                          },
                          {.timer = timer_});
  submit_inner = [&] { batcher.submit(2, inner.handler()); };
  Ending outer;
  batcher.submit(1, outer.handler());
  step();
  EXPECT_EQ(outer.value, 1);
  EXPECT_EQ(inner.value, 2);
}

TEST_F(AsyncMicrobatcherTest, OneItemMoreThanMaxPendingIsRefusedAndTheOthersAreNot) {
  ParkedBatches parked(io_);
  IntMicrobatcher batcher(io_.get_executor(), parked.fn(), {.max_batch_size = 8, .name = "small", .max_pending = 2, .timer = timer_});
  std::deque<Ending> endings(5);
  batcher.submit(0, endings[0].handler());
  step();  // runs: it is not pending any more
  batcher.submit(1, endings[1].handler());
  batcher.submit(2, endings[2].handler());
  batcher.submit(3, endings[3].handler());
  EXPECT_EQ(endings[3].calls, 0) << "a refusal must not run inside submit either";
  step();
  EXPECT_TRUE(is_microbatcher_error(endings[3].error, ErrorCode::kResourceExhausted));
  EXPECT_EQ(what_of(endings[3].error), "small: 2 items wait already, as many as max_pending allows; try again later");
  parked.release();
  step();
  batcher.submit(4, endings[4].handler());
  parked.release();
  step();
  parked.release();
  step();
  EXPECT_EQ(parked.batches(), (Batches{{0}, {1, 2}, {4}}));
  EXPECT_EQ(endings[2].value, 20);
  EXPECT_EQ(endings[4].value, 40);
  EXPECT_EQ(batcher.stats().refused, 1U);
}

TEST_F(AsyncMicrobatcherTest, NeighboursOfALongQueueShareALookAtTheClock) {
  ParkedBatches parked(io_);
  IntMicrobatcher batcher(io_.get_executor(), parked.fn(), {.timer = timer_});
  std::deque<Ending> endings(21);
  batcher.submit(0, endings[0].handler());
  step();
  const int asked = timer_->asked();
  for (int i = 1; i <= 20; ++i) {
    batcher.submit(i, endings[static_cast<std::size_t>(i)].handler());
    timer_->advance(microseconds(1000));
  }
  EXPECT_EQ(timer_->asked() - asked, 8);  // four alone, then four times four together
  parked.release();
  step();
  // Waits of 20, 19, 18 and 17 ms, then of 16, 12, 8 and 4 ms four times each.
  EXPECT_DOUBLE_EQ(batcher.stats().total_wait_ms, 74 + 4 * 40);
  parked.release();
  step();
}

TEST_F(AsyncMicrobatcherTest, OptionsOutOfRangeAreRefusedByName) {
  const auto message_of = [this](MicrobatcherOptions options) -> std::string {
    try {
      const IntMicrobatcher batcher(io_.get_executor(), times_ten(), std::move(options));
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message_of({.max_batch_size = 0, .name = "tokens"}), "tokens: max_batch_size is 0; it must be 1 or more");
  EXPECT_EQ(message_of({.name = "tokens", .max_pending = 0}), "tokens: max_pending is 0; it must be 1 or more");
  EXPECT_EQ(message_of({.batch_wait_timeout = Duration(-1), .name = "tokens"}),
            "tokens: batch_wait_timeout is -1 ns; it must be from 0 to 86400000000000 ns (24 h)");
  EXPECT_EQ(message_of({.batch_wait_timeout = Duration::max(), .name = "tokens"}),
            "tokens: batch_wait_timeout is 9223372036854775807 ns; it must be from 0 to 86400000000000 ns (24 h)");
  EXPECT_EQ(message_of({.batch_wait_timeout = Duration(0)}), "accepted");
}

TEST_F(AsyncMicrobatcherTest, AnEmptyExecutorIsRefused) {
  try {
    const IntMicrobatcher batcher(boost::asio::any_io_executor(), times_ten(), {.name = "tokenizer"});
    ADD_FAILURE() << "accepted";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "tokenizer: the executor is empty; it must be one that runs, such as io_context's get_executor()");
  }
}

TEST_F(AsyncMicrobatcherTest, TheTimerOfTheExecutorEndsTheWaitWhenNoneIsGiven) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.batch_wait_timeout = microseconds(50), .dispatch_when_idle = false});
  Ending ending;
  batcher.submit(4, ending.handler());
  io_.run();  // returns: nothing is left to do when the item has ended
  EXPECT_EQ(ending.value, 40);
  EXPECT_GE(batcher.stats().total_wait_ms, 0.05);
}

}  // namespace
}  // namespace lockstep::test
