// Goal    Every item ends exactly once, with a true outcome, whatever submits, cancels, failing batches, stop and destruction do at the same time.
// Method  Eight threads, each with an event loop of its own for its handlers; batches on two more threads; the seed of each round is printed when it fails.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <gtest/gtest.h>

#include "tests/unit/microbatcher/fixture.hpp"

namespace lockstep::test {
namespace {

/// Where data races are looked for, the first two stops (each way of dispatching) are in 8 x 100,000 items: some 25 s of one core. Other rounds have less.
#if defined(__SANITIZE_THREAD__)
constexpr int kItemsLong = 100'000;
constexpr int kItemsDefault = 2'000;
#elif defined(__SANITIZE_ADDRESS__)
constexpr int kItemsLong = 2'000;
constexpr int kItemsDefault = 2'000;
#else
constexpr int kItemsLong = 25'000;
constexpr int kItemsDefault = 25'000;
#endif

/// LOCKSTEP_STRESS_ITEMS sets another size for all rounds.
int items_per_thread(int otherwise) {
  const char* const text = std::getenv("LOCKSTEP_STRESS_ITEMS");
  return text == nullptr ? otherwise : std::max(std::atoi(text), 1'000);
}
const int kItemsPerThread = items_per_thread(kItemsDefault);
const int kItemsOfALongRound = items_per_thread(kItemsLong);
constexpr int kThreads = 8;
constexpr int kRounds = 4;
constexpr int kLongRounds = 2;

struct Counts {
  std::uint64_t good = 0, failed = 0, aborted = 0, stopped_or_full = 0;
};

/// Fails on a few items alone, on a few as a whole, and by a wrong count: decided by the items, so that the test knows what each may get.
std::vector<BatchOutcome<int>> moody(const std::vector<int>& items) {
  if (items.front() % 97 == 0) {
    throw std::domain_error("a bad batch");
  }
  std::vector<BatchOutcome<int>> outcomes;
  for (const int item : items) {
    outcomes.push_back(item % 31 == 0 ? BatchOutcome<int>(std::make_exception_ptr(std::range_error("a bad item"))) : BatchOutcome<int>(item + 1));
  }
  if (items.front() % 89 == 0) {
    outcomes.pop_back();
  }
  return outcomes;
}

/// The same as a coroutine, which goes on elsewhere before every other batch.
boost::asio::awaitable<std::vector<BatchOutcome<int>>> moody_coroutine(std::vector<int> items) {
  if (items.front() % 2 == 0) {
    const auto executor = co_await boost::asio::this_coro::executor;
    co_await boost::asio::post(executor, boost::asio::use_awaitable);
  }
  co_return moody(items);
}

/// One submitting thread: what it submitted, and how each ended. All but the batches happens on this thread, handlers and signals too.
class Submitter {
 public:
  Submitter(IntMicrobatcher& batcher, std::uint64_t seed, int items) : batcher_(batcher), random_(seed), items_(items) {}

  void submit_all(std::atomic<int>& submitted) {
    for (int i = 0; i < items_; ++i) {
      submit(static_cast<int>(random_() % 1'000'000));
      submitted.fetch_add(1, std::memory_order_relaxed);
      if (random_() % 4 == 0) {
        cancel_one();
      }
      if (random_() % 8 == 0) {
        poll();
      }
      // As many as a real client would keep open: without this, all of them would wait at once.
      while (open_ > 64) {
        poll();
        std::this_thread::yield();
      }
    }
  }
  /// Returns when all have ended, for each holds work.
  void finish() {
    io_.restart();
    io_.run();
  }
  [[nodiscard]] const Counts& counts() const { return counts_; }
  [[nodiscard]] const std::deque<int>& endings() const { return endings_; }

 private:
  void submit(int value) {
    endings_.push_back(0);
    signals_.push_back(std::make_unique<boost::asio::cancellation_signal>());
    int* ended = &endings_.back();  // a deque does not move what it holds
    ++open_;
    auto handler = [this, ended, value](const std::exception_ptr& error, int result) {
      ++*ended;
      --open_;
      count(error, value, result);
    };
    batcher_.submit(value, boost::asio::bind_executor(io_.get_executor(), boost::asio::bind_cancellation_slot(signals_.back()->slot(), std::move(handler))));
  }

  void count(const std::exception_ptr& error, int value, int result) {
    if (!error) {
      EXPECT_EQ(result, value + 1);
      ++counts_.good;
    } else if (is_aborted(error)) {
      ++counts_.aborted;
    } else if (is_microbatcher_error(error, ErrorCode::kCancelled) || is_microbatcher_error(error, ErrorCode::kResourceExhausted)) {
      ++counts_.stopped_or_full;
    } else {
      ++counts_.failed;
    }
  }

  void cancel_one() { signals_[signals_.size() - 1 - random_() % std::min<std::size_t>(signals_.size(), 64)]->emit(boost::asio::cancellation_type::terminal); }
  void poll() {
    io_.restart();
    io_.poll();
  }

  IntMicrobatcher& batcher_;
  std::mt19937_64 random_;
  int items_;
  boost::asio::io_context io_{1};
  std::deque<int> endings_;
  std::deque<std::unique_ptr<boost::asio::cancellation_signal>> signals_;
  int open_ = 0;
  Counts counts_;
};

constexpr int kNever = -1;
struct Round {
  std::uint64_t seed;
  int items;       ///< of each thread
  int stop_after;  ///< submits of all threads together; kNever: the microbatcher is destroyed with items open
  bool dispatch_when_idle;
  bool awaits;  ///< the batch function is a coroutine
};

void run_round(const Round& round) {
  const auto& [seed, items, stop_after, dispatch_when_idle, awaits] = round;
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", stop after " << stop_after << " of " << kThreads << " x " << items);
  boost::asio::thread_pool workers(2);
  const MicrobatcherOptions options{
      .max_batch_size = 16, .batch_wait_timeout = std::chrono::microseconds(50), .max_pending = 256, .dispatch_when_idle = dispatch_when_idle};
  auto batcher = awaits ? std::make_unique<IntMicrobatcher>(workers.get_executor(), moody_coroutine, options)
                        : std::make_unique<IntMicrobatcher>(workers.get_executor(), moody, options);
  std::deque<Submitter> submitters;
  for (int i = 0; i < kThreads; ++i) {
    submitters.emplace_back(*batcher, seed + static_cast<std::uint64_t>(i), items);
  }
  std::atomic<int> submitted{0};
  std::promise<void> stopped;
  {
    std::vector<std::jthread> threads;
    for (Submitter& submitter : submitters) {
      threads.emplace_back([&] { submitter.submit_all(submitted); });
    }
    if (stop_after != kNever) {
      while (submitted.load(std::memory_order_relaxed) < stop_after) {
        std::this_thread::yield();
      }
      batcher->stop([&] { stopped.set_value(); });
    } else {
      stopped.set_value();
    }
  }
  stopped.get_future().wait();
  if (stop_after != kNever) {
    for (Submitter& submitter : submitters) {
      submitter.finish();
    }
  }
  const BatchStats stats = batcher->stats();
  batcher.reset();
  workers.join();
  Counts sum;
  for (Submitter& submitter : submitters) {
    submitter.finish();
    EXPECT_TRUE(std::ranges::all_of(submitter.endings(), [](int calls) { return calls == 1; }));
    sum.good += submitter.counts().good;
    sum.failed += submitter.counts().failed;
    sum.aborted += submitter.counts().aborted;
    sum.stopped_or_full += submitter.counts().stopped_or_full;
  }
  EXPECT_EQ(sum.good + sum.failed + sum.aborted + sum.stopped_or_full, static_cast<std::uint64_t>(kThreads) * static_cast<std::uint64_t>(items));
  EXPECT_GT(sum.good, 0U);
  EXPECT_LE(stats.max_batch_size, 16U);
  if (stop_after != kNever) {
    EXPECT_EQ(stats.failures, sum.failed);
    EXPECT_EQ(stats.cancelled, sum.aborted);
    EXPECT_EQ(stats.refused, sum.stopped_or_full);
    EXPECT_GE(stats.total_items, sum.good + sum.failed);
  }
}

TEST(AsyncMicrobatcherStress, EveryItemEndsExactlyOnceWhenStoppedAtARandomMoment) {
  for (int round = 0; round < kRounds; ++round) {
    const auto seed = static_cast<std::uint64_t>(1000 + round * 100);
    std::mt19937_64 random(seed);
    const int items = round < kLongRounds ? kItemsOfALongRound : kItemsPerThread;
    const auto stop_after = static_cast<int>(random() % static_cast<std::uint64_t>(kThreads * items));
    run_round({.seed = seed, .items = items, .stop_after = stop_after, .dispatch_when_idle = round % 2 == 0, .awaits = false});
  }
}

TEST(AsyncMicrobatcherStress, EveryItemEndsExactlyOnceWhenTheFunctionIsACoroutine) {
  for (const bool dispatch_when_idle : {true, false}) {
    run_round({.seed = 55, .items = kItemsPerThread, .stop_after = kItemsPerThread, .dispatch_when_idle = dispatch_when_idle, .awaits = true});
    run_round({.seed = 56, .items = kItemsPerThread, .stop_after = kNever, .dispatch_when_idle = dispatch_when_idle, .awaits = true});
  }
}

TEST(AsyncMicrobatcherStress, EveryItemEndsExactlyOnceWhenDestroyedWithItemsOpen) {
  run_round({.seed = 77, .items = kItemsPerThread, .stop_after = kNever, .dispatch_when_idle = true, .awaits = false});
  run_round({.seed = 78, .items = kItemsPerThread, .stop_after = kNever, .dispatch_when_idle = false, .awaits = false});
}

TEST(SyncMicrobatcherStress, EverySubmitReturnsOrThrowsWhenStoppedAndStartedAtRandomMoments) {
  SyncMicrobatcher<int, int> batcher(moody, {.max_batch_size = 4});
  batcher.start();
  std::array<Counts, kThreads> counts{};
  std::atomic<int> submitted{0};
  const int kSubmits = kItemsPerThread / 10;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        std::mt19937_64 random(static_cast<std::uint64_t>(500 + thread));
        Counts& own = counts[static_cast<std::size_t>(thread)];
        for (int i = 0; i < kSubmits; ++i) {
          const int value = static_cast<int>(random() % 1'000'000);
          submitted.fetch_add(1, std::memory_order_relaxed);
          try {
            EXPECT_EQ(batcher.submit(value), value + 1);
            ++own.good;
          } catch (const MicrobatcherError& error) {
            ++(error.code() == ErrorCode::kCancelled ? own.stopped_or_full : own.failed);
          } catch (const std::runtime_error&) {
            ++own.failed;
          } catch (const std::domain_error&) {
            ++own.failed;
          }
        }
      });
    }
    std::mt19937_64 random(5);
    for (int stops = 0; stops < 5; ++stops) {
      const int moment = static_cast<int>(random() % (kThreads * kSubmits));
      while (submitted.load(std::memory_order_relaxed) < moment) {
        std::this_thread::yield();
      }
      batcher.stop();
      batcher.start();
    }
  }
  Counts sum;
  for (const Counts& own : counts) {
    sum.good += own.good;
    sum.failed += own.failed;
    sum.stopped_or_full += own.stopped_or_full;
  }
  const BatchStats stats = batcher.stats();
  EXPECT_EQ(sum.good + sum.failed + sum.stopped_or_full, static_cast<std::uint64_t>(kThreads) * kSubmits);
  EXPECT_EQ(stats.failures, sum.failed);
  EXPECT_EQ(stats.refused, sum.stopped_or_full);
  EXPECT_EQ(stats.total_items, sum.good + sum.failed);
}

}  // namespace
}  // namespace lockstep::test
