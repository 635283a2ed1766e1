// Goal    Any completion token works, and handlers run where they want to; items and results may be of any movable type.
// Method  Each token once, on one thread.
#include <deque>
#include <memory>

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_future.hpp>

#include "tests/unit/microbatcher/fixture.hpp"

namespace lockstep::test {
namespace {

using boost::asio::awaitable;

TEST_F(AsyncMicrobatcherTest, ACoroutineAwaitsResultsErrorsAndStop) {
  IntMicrobatcher batcher(io_.get_executor(), [](std::vector<int> items) -> std::vector<int> {
    if (items.front() < 0) {
      throw std::domain_error("negative");
    }
    return items;
  });
  int result = 0;
  std::string error;
  bool stopped = false;
  boost::asio::co_spawn(
      io_,
      [&]() -> awaitable<void> {
        result = co_await batcher.submit(5);
        try {
          co_await batcher.submit(-1);
        } catch (const std::domain_error& thrown) {
          error = thrown.what();
        }
        co_await batcher.stop();
        stopped = true;
      },
      boost::asio::detached);
  io_.run();
  EXPECT_EQ(result, 5);
  EXPECT_EQ(error, "negative");
  EXPECT_TRUE(stopped);
}

TEST_F(AsyncMicrobatcherTest, ACancelledCoroutineEndsItsItem) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.dispatch_when_idle = false, .timer = timer_});
  boost::asio::cancellation_signal signal;
  bool aborted = false;
  boost::asio::co_spawn(
      io_,
      [&]() -> awaitable<void> {
        try {
          co_await batcher.submit(5);
        } catch (const boost::system::system_error& error) {
          aborted = error.code() == boost::asio::error::operation_aborted;
        }
      },
      boost::asio::bind_cancellation_slot(signal.slot(), boost::asio::detached));
  step();
  EXPECT_FALSE(aborted);
  signal.emit(boost::asio::cancellation_type::terminal);
  step();
  EXPECT_TRUE(aborted);
  EXPECT_EQ(batcher.stats().cancelled, 1U);
}

TEST_F(AsyncMicrobatcherTest, AFutureHoldsTheResultOrTheError) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten());
  std::future<int> result = batcher.submit(6, boost::asio::use_future);
  std::future<void> stopped = batcher.stop(boost::asio::use_future);
  std::future<int> refused = batcher.submit(7, boost::asio::use_future);
  io_.run();
  EXPECT_EQ(result.get(), 60);
  stopped.get();
  EXPECT_THROW(refused.get(), MicrobatcherError);
}

TEST_F(AsyncMicrobatcherTest, ADeferredSubmitIsRefusedWhenItBeginsAfterTheMicrobatcherIsGone) {
  Ending ending;
  auto batcher = std::make_unique<IntMicrobatcher>(io_.get_executor(), times_ten());
  auto operation = batcher->submit(1, boost::asio::deferred);
  step();
  EXPECT_TRUE(batches_.empty());
  batcher.reset();
  std::move(operation)(ending.handler());
  step();
  EXPECT_TRUE(is_microbatcher_error(ending.error, ErrorCode::kCancelled));
}

TEST_F(AsyncMicrobatcherTest, AHandlerRunsOnItsOwnExecutorWhichHasWorkUntilThen) {
  boost::asio::io_context theirs;
  ParkedBatches parked(io_);
  IntMicrobatcher batcher(io_.get_executor(), parked.fn());
  Ending ending;
  batcher.submit(2, boost::asio::bind_executor(theirs.get_executor(), ending.handler()));
  step();
  EXPECT_EQ(theirs.poll(), 0U);
  EXPECT_FALSE(theirs.stopped()) << "run would have returned before the item ended";
  parked.release();
  step();
  EXPECT_EQ(ending.calls, 0);
  EXPECT_EQ(theirs.run(), 1U);
  EXPECT_EQ(ending.value, 20);
}

TEST_F(AsyncMicrobatcherTest, HandlersOfOneBatchThatShareAnExecutorShareAPost) {
  boost::asio::io_context first;
  boost::asio::io_context second;
  IntMicrobatcher batcher(io_.get_executor(), times_ten());
  std::deque<Ending> endings(5);
  for (std::size_t i = 0; i < endings.size(); ++i) {
    batcher.submit(static_cast<int>(i), boost::asio::bind_executor((i < 3 ? first : second).get_executor(), endings[i].handler()));
  }
  step();
  EXPECT_EQ(first.run(), 1U);
  EXPECT_EQ(endings[2].value, 20);
  EXPECT_EQ(endings[3].calls, 0);
  EXPECT_EQ(second.run(), 1U);
  EXPECT_EQ(endings[4].value, 40);
}

TEST_F(AsyncMicrobatcherTest, AHandlerThatThrowsOnAnExecutorOfItsOwnTakesNothingFromItsNeighbours) {
  boost::asio::io_context theirs;
  IntMicrobatcher batcher(io_.get_executor(), times_ten());
  std::deque<Ending> endings(2);
  batcher.submit(1, boost::asio::bind_executor(theirs.get_executor(), [](const std::exception_ptr&, int) { throw std::runtime_error("own trouble"); }));
  batcher.submit(2, boost::asio::bind_executor(theirs.get_executor(), endings[0].handler()));
  batcher.submit(3, boost::asio::bind_executor(theirs.get_executor(), endings[1].handler()));
  step();
  EXPECT_THROW(theirs.run(), std::runtime_error);
  theirs.run();
  EXPECT_EQ(endings[0].value, 20);
  EXPECT_EQ(endings[1].value, 30);
}

TEST_F(AsyncMicrobatcherTest, AHandlerWhoseContextIsDestroyedFirstIsNotCalledAndItsSignalReachesNothing) {
  auto theirs = std::make_unique<boost::asio::io_context>();
  IntMicrobatcher batcher(io_.get_executor(), times_ten());
  Ending ending;
  auto kept = std::make_shared<int>(0);  // by the test and by the handler
  boost::asio::cancellation_signal signal;
  batcher.submit(
      1, boost::asio::bind_executor(theirs->get_executor(), boost::asio::bind_cancellation_slot(
                                                                signal.slot(), [kept, handler = ending.handler()](std::exception_ptr error, int value) mutable {
                                                                  handler(std::move(error), value);
                                                                })));
  step();
  theirs.reset();
  EXPECT_EQ(kept.use_count(), 1) << "the handler is kept";
  signal.emit(boost::asio::cancellation_type::terminal);
  EXPECT_EQ(ending.calls, 0);
}

TEST_F(AsyncMicrobatcherTest, AnItemEndsAfterItsSignalIsGone) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten());
  Ending ending;
  auto signal = std::make_unique<boost::asio::cancellation_signal>();
  batcher.submit(1, boost::asio::bind_cancellation_slot(signal->slot(), ending.handler()));
  signal.reset();
  step();
  EXPECT_EQ(ending.value, 10);
}

/// Counts the blocks of the handlers that carry it.
template <typename T>
struct CountingAllocator {
  using value_type = T;
  explicit CountingAllocator(int* open_blocks, int* blocks) : open(open_blocks), all(blocks) {}
  template <typename U>
  CountingAllocator(const CountingAllocator<U>& other) : open(other.open), all(other.all) {}  // NOLINT(google-explicit-constructor): an allocator converts
  T* allocate(std::size_t count) {
    ++*open;
    ++*all;
    return std::allocator<T>().allocate(count);
  }
  void deallocate(T* place, std::size_t count) {
    --*open;
    std::allocator<T>().deallocate(place, count);
  }
  template <typename U>
  bool operator==(const CountingAllocator<U>& other) const {
    return open == other.open;
  }
  int* open;
  int* all;
};

TEST_F(AsyncMicrobatcherTest, AnItemLivesInOneBlockOfItsHandlersAllocatorWhichIsFreeBeforeTheHandlerRuns) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten());
  int open = 0;
  int blocks = 0;
  int open_in_handler = -1;
  batcher.submit(1, boost::asio::bind_allocator(CountingAllocator<void>(&open, &blocks), [&](const std::exception_ptr&, int) { open_in_handler = open; }));
  EXPECT_EQ(open, 1);
  step();
  EXPECT_EQ(blocks, 1);
  EXPECT_EQ(open_in_handler, 0);
}

TEST_F(AsyncMicrobatcherTest, ItemsAndResultsMayBeMovableOnly) {
  using Box = std::unique_ptr<int>;
  AsyncMicrobatcher<Box, Box> batcher(io_.get_executor(), [](std::vector<Box> boxes) { return boxes; });
  Box box;
  batcher.submit(std::make_unique<int>(4), [&](const std::exception_ptr&, Box result) { box = std::move(result); });
  io_.run();
  ASSERT_NE(box, nullptr);
  EXPECT_EQ(*box, 4);
}

TEST_F(AsyncMicrobatcherTest, ResultsMayBeBool) {
  AsyncMicrobatcher<int, bool> batcher(io_.get_executor(), [](const std::vector<int>& items) {
    std::vector<bool> odd;
    for (const int item : items) {
      odd.push_back(item % 2 != 0);
    }
    return odd;
  });
  std::future<bool> one = batcher.submit(1, boost::asio::use_future);
  std::future<bool> two = batcher.submit(2, boost::asio::use_future);
  io_.run();
  EXPECT_TRUE(one.get());
  EXPECT_FALSE(two.get());
}

}  // namespace
}  // namespace lockstep::test
