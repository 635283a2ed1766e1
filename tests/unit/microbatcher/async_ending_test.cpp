// Goal    Every item ends exactly once, with its own outcome: results, failures of one and of all, cancellation, stop and destruction.
// Method  One thread steps the event loop; batches that end when the test says so.
#include <deque>

#include "tests/unit/microbatcher/fixture.hpp"

namespace lockstep::test {
namespace {

using boost::asio::bind_cancellation_slot;
using boost::asio::cancellation_signal;
using boost::asio::cancellation_type;

TEST_F(AsyncMicrobatcherTest, OneItemsFailureIsItsAloneWhenTheFunctionReturnsOutcomes) {
  IntMicrobatcher batcher(io_.get_executor(), [](std::vector<int> items) {
    std::vector<BatchOutcome<int>> outcomes;
    for (const int item : items) {
      if (item < 0) {
        outcomes.emplace_back(std::make_exception_ptr(std::domain_error("negative")));
      } else {
        outcomes.emplace_back(item);
      }
    }
    return outcomes;
  });
  std::deque<Ending> endings(3);
  batcher.submit(1, endings[0].handler());
  batcher.submit(-1, endings[1].handler());
  batcher.submit(3, endings[2].handler());
  step();
  EXPECT_EQ(endings[0].value, 1);
  EXPECT_EQ(what_of(endings[1].error), "negative");
  EXPECT_EQ(endings[2].value, 3);
  EXPECT_FALSE(endings[2].error);
  EXPECT_EQ(batcher.stats().failures, 1U);
}

/// Its copy throws, as one that allocates may.
struct ThrowsWhenCopied {
  ThrowsWhenCopied() = default;
  ThrowsWhenCopied(const ThrowsWhenCopied& /*other*/) { throw std::bad_alloc(); }
  ThrowsWhenCopied(ThrowsWhenCopied&& /*other*/) noexcept {}
  ThrowsWhenCopied& operator=(const ThrowsWhenCopied&) = default;
  ThrowsWhenCopied& operator=(ThrowsWhenCopied&&) = default;
  ~ThrowsWhenCopied() = default;
};

TEST_F(AsyncMicrobatcherTest, AnOutcomeThatIsNeitherAValueNorAnExceptionIsAnErrorForItsItem) {
  using Outcome = BatchOutcome<ThrowsWhenCopied>;
  AsyncMicrobatcher<int, ThrowsWhenCopied> batcher(io_.get_executor(), [](const std::vector<int>& items) {
    std::vector<Outcome> outcomes(items.size());
    outcomes[0] = std::exception_ptr();
    outcomes[1] = std::make_exception_ptr(std::domain_error("replaced"));
    const ThrowsWhenCopied value;
    EXPECT_THROW(outcomes[1].emplace<0>(value), std::bad_alloc);
    EXPECT_TRUE(outcomes[1].valueless_by_exception());
    return outcomes;
  });
  std::deque<std::exception_ptr> errors(3);
  std::vector<int> calls(3);
  for (std::size_t i = 0; i < errors.size(); ++i) {
    batcher.submit(static_cast<int>(i), [&, i](std::exception_ptr error, ThrowsWhenCopied /*value*/) {
      errors[i] = std::move(error);
      ++calls[i];
    });
  }
  step();
  EXPECT_EQ(calls, (std::vector{1, 1, 1}));
  for (const std::size_t i : {0U, 1U}) {
    EXPECT_TRUE(is_microbatcher_error(errors[i], ErrorCode::kInternal));
    EXPECT_EQ(what_of(errors[i]), "microbatcher: the batch function gave an item neither a value nor an exception: return one of them for each");
  }
  EXPECT_FALSE(errors[2]);
  EXPECT_EQ(batcher.stats().failures, 2U);
}

TEST_F(AsyncMicrobatcherTest, AThrowingFunctionFailsItsWholeBatchAndTheNextGoesOn) {
  IntMicrobatcher batcher(io_.get_executor(), [](std::vector<int> items) -> std::vector<int> {
    if (items.front() == 1) {
      throw std::domain_error("no luck");
    }
    return items;
  });
  std::deque<Ending> endings(3);
  batcher.submit(1, endings[0].handler());
  batcher.submit(2, endings[1].handler());
  step();
  batcher.submit(3, endings[2].handler());
  step();
  EXPECT_EQ(what_of(endings[0].error), "no luck");
  EXPECT_EQ(what_of(endings[1].error), "no luck");
  EXPECT_EQ(endings[2].value, 3);
  EXPECT_EQ(batcher.stats().failures, 2U);
}

TEST_F(AsyncMicrobatcherTest, AnAwaitableFunctionThatThrowsFailsItsWholeBatchBeforeAndAfterItsFirstSuspension) {
  const auto late = [](std::vector<int> items) -> boost::asio::awaitable<std::vector<int>> {
    const auto executor = co_await boost::asio::this_coro::executor;
    co_await boost::asio::post(executor, boost::asio::use_awaitable);
    throw std::domain_error("late " + std::to_string(items.size()));
  };
  const auto early = [](const std::vector<int>&) -> boost::asio::awaitable<std::vector<int>> { throw std::domain_error("early"); };
  IntMicrobatcher batcher(io_.get_executor(), late);
  std::deque<Ending> endings(3);
  batcher.submit(1, endings[0].handler());
  batcher.submit(2, endings[1].handler());
  step();
  EXPECT_EQ(what_of(endings[0].error), "late 2");
  EXPECT_EQ(what_of(endings[1].error), "late 2");

  IntMicrobatcher at_once(io_.get_executor(), early);
  at_once.submit(3, endings[2].handler());
  step();
  EXPECT_EQ(what_of(endings[2].error), "early");
}

class WrongCount : public AsyncMicrobatcherTest, public testing::WithParamInterface<std::size_t> {};

TEST_P(WrongCount, IsAnErrorForEveryItemAndNeverAHang) {
  IntMicrobatcher batcher(io_.get_executor(),
                          [](std::vector<int> items) {
                            items.resize(GetParam());
                            return items;
                          },
                          {.name = "counted"});
  std::deque<Ending> endings(3);
  for (Ending& ending : endings) {
    batcher.submit(1, ending.handler());
  }
  step();
  for (const Ending& ending : endings) {
    EXPECT_TRUE(is_microbatcher_error(ending.error, ErrorCode::kInternal));
    EXPECT_EQ(what_of(ending.error),
              "counted: the batch function returned " + std::to_string(GetParam()) + " results for 3 items; it must return one for each, in order");
  }
  EXPECT_EQ(batcher.stats().failures, 3U);
}
INSTANTIATE_TEST_SUITE_P(AsyncMicrobatcherTest, WrongCount, testing::Values(0, 2, 4));

TEST_F(AsyncMicrobatcherTest, ACancelledItemEndsAtOnceAndNeverReachesTheFunctionWhenItWaits) {
  ParkedBatches parked(io_);
  IntMicrobatcher batcher(io_.get_executor(), parked.fn());
  std::deque<Ending> endings(4);
  cancellation_signal signal;
  batcher.submit(0, endings[0].handler());
  step();
  batcher.submit(1, endings[1].handler());
  batcher.submit(2, bind_cancellation_slot(signal.slot(), endings[2].handler()));
  batcher.submit(3, endings[3].handler());
  signal.emit(cancellation_type::total);
  step();
  EXPECT_TRUE(is_aborted(endings[2].error));
  parked.release();
  step();
  parked.release();
  step();
  EXPECT_EQ(parked.batches(), (Batches{{0}, {1, 3}}));
  EXPECT_EQ(endings[2].calls, 1);
  EXPECT_EQ(endings[3].value, 30);
  EXPECT_EQ(batcher.stats().cancelled, 1U);
  signal.emit(cancellation_type::terminal);  // nothing is left to cancel
  step();
  EXPECT_EQ(endings[2].calls, 1);
}

TEST_F(AsyncMicrobatcherTest, ACancelledItemOfARunningBatchEndsAtOnceAndTheOthersGetTheirResults) {
  ParkedBatches parked(io_);
  IntMicrobatcher batcher(io_.get_executor(), parked.fn());
  std::deque<Ending> endings(2);
  cancellation_signal signal;
  batcher.submit(1, bind_cancellation_slot(signal.slot(), endings[0].handler()));
  batcher.submit(2, endings[1].handler());
  step();
  signal.emit(cancellation_type::total);  // promises no side effects, which cannot be kept any more
  step();
  EXPECT_EQ(endings[0].calls, 0);
  signal.emit(cancellation_type::terminal);
  step();
  EXPECT_TRUE(is_aborted(endings[0].error));
  parked.release();
  step();
  EXPECT_EQ(endings[0].calls, 1);
  EXPECT_EQ(endings[1].value, 20);
}

TEST_F(AsyncMicrobatcherTest, TheLoopHasNothingLeftToDoWhenTheOnlyItemIsCancelled) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.batch_wait_timeout = std::chrono::hours(24), .dispatch_when_idle = false});
  Ending ending;
  cancellation_signal signal;
  batcher.submit(1, bind_cancellation_slot(signal.slot(), ending.handler()));
  signal.emit(cancellation_type::terminal);
  io_.run();  // would last for a day if the timer stayed
  EXPECT_TRUE(is_aborted(ending.error));
  EXPECT_TRUE(batches_.empty());
}

TEST_F(AsyncMicrobatcherTest, StopFinishesWhatWasAcceptedWithoutTheTimeoutAndRefusesTheRest) {
  ParkedBatches parked(io_);
  IntMicrobatcher batcher(io_.get_executor(), parked.fn(), {.max_batch_size = 2, .name = "closing", .dispatch_when_idle = false, .timer = timer_});
  std::deque<Ending> endings(4);
  for (int i = 0; i < 3; ++i) {
    batcher.submit(i, endings[static_cast<std::size_t>(i)].handler());
  }
  step();
  int stopped = 0;
  EXPECT_TRUE(batcher.is_running());
  batcher.stop([&] { ++stopped; });
  batcher.stop([&] { ++stopped; });
  EXPECT_FALSE(batcher.is_running());
  batcher.submit(3, endings[3].handler());
  step();
  EXPECT_EQ(what_of(endings[3].error), "closing: it is not running, so it takes no items; submit between start and stop");
  EXPECT_TRUE(is_microbatcher_error(endings[3].error, ErrorCode::kCancelled));
  parked.release();
  step();
  EXPECT_EQ(parked.batches(), (Batches{{0, 1}, {2}}));
  EXPECT_EQ(stopped, 0);
  parked.release();
  step();
  EXPECT_EQ(endings[2].value, 20);
  EXPECT_EQ(stopped, 2);
  batcher.stop([&] { ++stopped; });
  EXPECT_EQ(stopped, 2) << "not inside stop";
  step();
  EXPECT_EQ(stopped, 3);
}

TEST_F(AsyncMicrobatcherTest, StopEndsWhenTheLastAcceptedItemIsCancelled) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.dispatch_when_idle = false, .timer = timer_});
  Ending ending;
  cancellation_signal signal;
  batcher.submit(1, bind_cancellation_slot(signal.slot(), ending.handler()));
  bool stopped = false;
  batcher.stop([&] { stopped = true; });
  signal.emit(cancellation_type::terminal);
  step();
  EXPECT_TRUE(stopped);
  EXPECT_TRUE(is_aborted(ending.error));
  EXPECT_TRUE(batches_.empty());
}

TEST_F(AsyncMicrobatcherTest, DestructionEndsWaitingAndRunningItemsAndWhoeverWaitsForStop) {
  ParkedBatches parked(io_);
  std::deque<Ending> endings(3);
  bool stopped = false;
  {
    IntMicrobatcher batcher(io_.get_executor(), parked.fn(), {.name = "short-lived"});
    batcher.submit(0, endings[0].handler());
    step();
    batcher.submit(1, endings[1].handler());
    batcher.submit(2, endings[2].handler());
    batcher.stop([&] { stopped = true; });
  }
  step();
  for (const Ending& ending : endings) {
    EXPECT_EQ(ending.calls, 1);
    EXPECT_TRUE(is_microbatcher_error(ending.error, ErrorCode::kCancelled));
    EXPECT_EQ(what_of(ending.error), "short-lived: it was destroyed before this item was done; stop() before that finishes all items");
  }
  EXPECT_TRUE(stopped);
  parked.release();  // the batch that still runs ends into nothing
  step();
  EXPECT_EQ(parked.batches(), (Batches{{0}}));
  EXPECT_EQ(endings[0].calls, 1);
}

TEST_F(AsyncMicrobatcherTest, AHandlerThatThrowsTakesNothingFromTheOthers) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten());
  std::deque<Ending> endings(2);
  batcher.submit(1, endings[0].handler());
  batcher.submit(2, [](const std::exception_ptr&, int) { throw std::runtime_error("a handler's own trouble"); });
  batcher.submit(3, endings[1].handler());
  EXPECT_THROW(io_.run(), std::runtime_error);
  step();
  EXPECT_EQ(endings[0].value, 10);
  EXPECT_EQ(endings[1].value, 30);
}

}  // namespace
}  // namespace lockstep::test
