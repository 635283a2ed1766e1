// Goal    SyncMicrobatcher gives each caller its own result or error, batches what arrives while a batch runs, and stops without losing an item.
// Method  Real threads, ordered by futures and by counting what was accepted: nothing depends on time.
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/microbatcher/fixture.hpp"

namespace lockstep::test {
namespace {

using IntSync = SyncMicrobatcher<int, int>;

std::vector<int> plus_one(std::vector<int> items) {
  for (int& item : items) {
    ++item;
  }
  return items;
}

/// Submits from threads of its own while the first batch is held, so that the rest forms batches.
class HeldBatches {
 public:
  explicit HeldBatches(std::size_t max_batch_size)
      : batcher_(
            [this](std::vector<int> items) {
              sizes_.push_back(items.size());
              if (sizes_.size() == 1) {
                began_.set_value();
                go_on_.get_future().wait();
              }
              return plus_one(std::move(items));
            },
            {.max_batch_size = max_batch_size, .timer = timer_}) {
    batcher_.start();
  }

  /// Returns when the item is accepted: one call of `now` for each, and one more for the first batch.
  void submit(int item) {
    const int asked = timer_->asked();
    results_.push_back(std::make_unique<std::future<int>>());
    std::packaged_task<int()> task([this, item] { return batcher_.submit(item); });
    *results_.back() = task.get_future();
    threads_.emplace_back(std::move(task));
    while (timer_->asked() == asked) {
      std::this_thread::yield();
    }
    if (results_.size() == 1) {
      began_.get_future().wait();
    }
  }
  void let_go() { go_on_.set_value(); }
  [[nodiscard]] int result(std::size_t index) { return results_[index]->get(); }
  [[nodiscard]] const std::vector<std::size_t>& sizes() const { return sizes_; }
  [[nodiscard]] IntSync& batcher() { return batcher_; }

 private:
  std::shared_ptr<ManualTimer> timer_ = std::make_shared<ManualTimer>();  // shared with the microbatcher
  std::promise<void> began_;
  std::promise<void> go_on_;
  std::vector<std::size_t> sizes_;
  IntSync batcher_;
  std::vector<std::unique_ptr<std::future<int>>> results_;
  std::vector<std::jthread> threads_;
};

TEST(SyncMicrobatcher, SubmitReturnsTheResult) {
  IntSync batcher(plus_one);
  batcher.start();
  EXPECT_TRUE(batcher.is_running());
  EXPECT_EQ(batcher.submit(1), 2);
  EXPECT_EQ(batcher.submit(41), 42);
  EXPECT_EQ(batcher.stats().total_items, 2U);
}

TEST(SyncMicrobatcher, SubmitThrowsWhatTheBatchFunctionThrewOrReturnedForTheItem) {
  IntSync throwing([](const std::vector<int>&) -> std::vector<int> { throw std::domain_error("no luck"); });
  throwing.start();
  EXPECT_THROW(throwing.submit(1), std::domain_error);

  IntSync returning([](const std::vector<int>& items) {
    std::vector<BatchOutcome<int>> outcomes;
    for (const int item : items) {
      outcomes.push_back(item < 0 ? BatchOutcome<int>(std::make_exception_ptr(std::range_error("negative"))) : BatchOutcome<int>(item));
    }
    return outcomes;
  });
  returning.start();
  EXPECT_THROW(returning.submit(-1), std::range_error);
  EXPECT_EQ(returning.submit(1), 1);
}

TEST(SyncMicrobatcher, SubmitThrowsWhenTheResultCountIsWrong) {
  IntSync batcher([](std::vector<int> items) {
    items.pop_back();
    return items;
  });
  batcher.start();
  try {
    batcher.submit(1);
    FAIL() << "nothing was thrown";
  } catch (const MicrobatcherError& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
  }
}

TEST(SyncMicrobatcher, SubmitThrowsBeforeStartAndAfterStopAndWorksAfterTheNextStart) {
  IntSync batcher(plus_one, {.name = "lazy"});
  const auto code_of_submit = [&] {
    try {
      batcher.submit(1);
    } catch (const MicrobatcherError& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  EXPECT_FALSE(batcher.is_running());
  EXPECT_EQ(code_of_submit(), ErrorCode::kCancelled);
  batcher.start();
  batcher.start();
  EXPECT_EQ(batcher.submit(1), 2);
  batcher.stop();
  batcher.stop();
  EXPECT_FALSE(batcher.is_running());
  EXPECT_EQ(code_of_submit(), ErrorCode::kCancelled);
  batcher.start();
  EXPECT_EQ(batcher.submit(2), 3);
  EXPECT_EQ(batcher.stats().total_items, 2U);
  EXPECT_EQ(batcher.stats().refused, 2U);
}

TEST(SyncMicrobatcher, ItemsThatArriveWhileABatchRunsShareTheNext) {
  HeldBatches held(3);
  for (int i = 0; i < 5; ++i) {
    held.submit(i);
  }
  held.let_go();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(held.result(static_cast<std::size_t>(i)), i + 1);
  }
  held.batcher().stop();
  EXPECT_EQ(held.sizes(), (std::vector<std::size_t>{1, 3, 1}));
}

TEST(SyncMicrobatcher, StopFinishesWhatWasAccepted) {
  HeldBatches held(2);
  for (int i = 0; i < 4; ++i) {
    held.submit(i);
  }
  std::jthread stopper([&] { held.batcher().stop(); });
  while (held.batcher().is_running()) {
    std::this_thread::yield();
  }
  held.let_go();
  stopper.join();
  EXPECT_EQ(held.batcher().stats().total_items, 4U);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(held.result(static_cast<std::size_t>(i)), i + 1);
  }
}

TEST(SyncMicrobatcher, AnItemWaitsOutTheTimeoutWhenIdleDispatchIsOff) {
  IntSync batcher(plus_one, {.batch_wait_timeout = std::chrono::microseconds(100), .dispatch_when_idle = false});
  batcher.start();
  EXPECT_EQ(batcher.submit(1), 2);
  EXPECT_GE(batcher.stats().total_wait_ms, 0.1);
}

TEST(SyncMicrobatcher, SubmitAndStopInsideTheBatchFunctionThrowInsteadOfWaitingForThemselves) {
  IntSync* self = nullptr;
  std::vector<std::string> errors;
  IntSync batcher(
      [&](std::vector<int> items) {
        try {
          self->submit(1);
        } catch (const std::logic_error& error) {
          errors.emplace_back(error.what());
        }
        try {
          self->stop();
        } catch (const std::logic_error& error) {
          errors.emplace_back(error.what());
        }
        return items;
      },
      {.name = "loop"});
  self = &batcher;
  batcher.start();
  EXPECT_EQ(batcher.submit(5), 5);
  EXPECT_EQ(errors, (std::vector<std::string>{"loop: submit inside the batch function would wait for itself: call it from another thread",
                                              "loop: stop inside the batch function would wait for itself: call it from another thread"}));
}

TEST(SyncMicrobatcher, OptionsOutOfRangeThrow) {
  EXPECT_THROW(IntSync(plus_one, {.max_batch_size = 0}), std::invalid_argument);
}

}  // namespace
}  // namespace lockstep::test
