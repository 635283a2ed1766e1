// Goal    What a careless user does in callbacks harms nobody else: destruction, throws, and submits from inside them; limits at their ends.
// Method  One thread steps the event loop.
#include <deque>
#include <limits>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "tests/unit/microbatcher/fixture.hpp"

namespace lockstep::test {
namespace {

using boost::asio::awaitable;

TEST_F(AsyncMicrobatcherTest, DestructionInsideTheBatchFunctionEndsItsItemsAndThoseThatWait) {
  std::unique_ptr<IntMicrobatcher> batcher;
  const auto check = [&](auto fn) {
    batcher = std::make_unique<IntMicrobatcher>(io_.get_executor(), fn, MicrobatcherOptions{.max_batch_size = 2});
    std::deque<Ending> endings(3);
    for (int i = 0; i < 3; ++i) {
      batcher->submit(i, endings[static_cast<std::size_t>(i)].handler());
    }
    step();
    for (const Ending& ending : endings) {
      EXPECT_EQ(ending.calls, 1);
      EXPECT_TRUE(is_microbatcher_error(ending.error, ErrorCode::kCancelled));
    }
  };
  check([&, kept = std::make_shared<int>(1)](std::vector<int> items) {
    batcher.reset();
    EXPECT_EQ(*kept, 1) << "the function lives until it has returned";
    return items;
  });
  check([&, kept = std::make_shared<int>(1)](std::vector<int> items) -> awaitable<std::vector<int>> {
    batcher.reset();
    const auto executor = co_await boost::asio::this_coro::executor;
    co_await boost::asio::post(executor, boost::asio::use_awaitable);
    EXPECT_EQ(*kept, 1) << "the function lives until it has returned";
    co_return items;
  });
}

TEST_F(AsyncMicrobatcherTest, DestructionInsideAHandlerEndsTheItemsThatWaitAndTakesNothingFromItsNeighbours) {
  std::unique_ptr<IntMicrobatcher> batcher;
  const auto check = [&](auto fn) {
    batcher = std::make_unique<IntMicrobatcher>(io_.get_executor(), fn, MicrobatcherOptions{.max_batch_size = 2});
    std::deque<Ending> endings(2);
    batcher->submit(1, [&](const std::exception_ptr&, int) { batcher.reset(); });
    batcher->submit(2, endings[0].handler());
    batcher->submit(3, endings[1].handler());
    step();
    EXPECT_EQ(endings[0].value, 2);
    EXPECT_TRUE(is_microbatcher_error(endings[1].error, ErrorCode::kCancelled));
  };
  check([](std::vector<int> items) { return items; });
  check([](std::vector<int> items) -> awaitable<std::vector<int>> { co_return items; });
}

TEST_F(AsyncMicrobatcherTest, ACoroutineThatDestroysTheMicrobatcherItAwaitedGoesOn) {
  auto batcher = std::make_unique<IntMicrobatcher>(io_.get_executor(), times_ten());
  int result = 0;
  boost::asio::co_spawn(
      io_,
      [&]() -> awaitable<void> {
        result = co_await batcher->submit(1);
        batcher.reset();
        result += 1;
      },
      boost::asio::detached);
  io_.run();
  EXPECT_EQ(result, 11);
}

TEST_F(AsyncMicrobatcherTest, AHandlerThatThrowsBetweenBatchesOfACoroutineDoesNotEndThem) {
  IntMicrobatcher batcher(io_.get_executor(), [](std::vector<int> items) -> awaitable<std::vector<int>> { co_return items; }, {.max_batch_size = 1});
  std::deque<Ending> endings(2);
  batcher.submit(1, [](const std::exception_ptr&, int) { throw std::runtime_error("a handler's own trouble"); });
  batcher.submit(2, endings[0].handler());
  EXPECT_THROW(io_.run(), std::runtime_error);
  batcher.submit(3, endings[1].handler());
  step();
  EXPECT_EQ(endings[0].value, 2);
  EXPECT_EQ(endings[1].value, 3);
}

TEST_F(AsyncMicrobatcherTest, ACoroutineThatThrowsFailsItsBatchAloneWhenBatchesFollowEachOther) {
  IntMicrobatcher batcher(io_.get_executor(),
                          [](std::vector<int> items) -> awaitable<std::vector<int>> {
                            if (items.front() == 2) {
                              throw std::domain_error("no twos");
                            }
                            co_return items;
                          },
                          {.max_batch_size = 1});
  std::deque<Ending> endings(3);
  for (int i = 0; i < 3; ++i) {
    batcher.submit(i + 1, endings[static_cast<std::size_t>(i)].handler());
  }
  step();
  EXPECT_EQ(endings[0].value, 1);
  EXPECT_EQ(what_of(endings[1].error), "no twos");
  EXPECT_EQ(endings[2].value, 3);
  EXPECT_EQ(batcher.stats().failures, 1U);
}

TEST_F(AsyncMicrobatcherTest, AnEmptyFunctionFailsEachItemWithItsOwnException) {
  IntMicrobatcher plain(io_.get_executor(), std::function<std::vector<int>(std::vector<int>)>());
  IntMicrobatcher coroutine(io_.get_executor(), std::function<awaitable<std::vector<int>>(std::vector<int>)>());
  for (IntMicrobatcher* const batcher : {&plain, &coroutine}) {
    Ending ending;
    batcher->submit(1, ending.handler());
    step();
    ASSERT_TRUE(ending.error);
    EXPECT_THROW(std::rethrow_exception(ending.error), std::bad_function_call);
  }
}

TEST_F(AsyncMicrobatcherTest, TheLargestLimitsCostNothingUntilThereAreItems) {
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  IntMicrobatcher batcher(io_.get_executor(), times_ten(), {.max_batch_size = kMax, .max_pending = kMax});
  std::deque<Ending> endings(1000);
  for (Ending& ending : endings) {
    batcher.submit(1, ending.handler());
  }
  step();
  EXPECT_EQ(batcher.stats().max_batch_size, 1000U);
  EXPECT_EQ(endings.back().value, 10);
}

TEST_F(AsyncMicrobatcherTest, CancellingANeighbourWhoseBatchHasEndedChangesNothing) {
  IntMicrobatcher batcher(io_.get_executor(), times_ten());
  boost::asio::cancellation_signal signal;
  Ending ending;
  batcher.submit(1, [&](const std::exception_ptr&, int) { signal.emit(boost::asio::cancellation_type::terminal); });
  batcher.submit(2, boost::asio::bind_cancellation_slot(signal.slot(), ending.handler()));
  step();
  EXPECT_EQ(ending.calls, 1);
  EXPECT_EQ(ending.value, 20);
  EXPECT_EQ(batcher.stats().cancelled, 0U);
}

}  // namespace
}  // namespace lockstep::test
