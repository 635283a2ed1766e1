// What the tests of the microbatchers share: a timer that the test turns, and an event loop that the test steps.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <gtest/gtest.h>

#include "lockstep/microbatcher.hpp"

namespace lockstep::test {

/// Time passes in `advance` only. `now` is asked once for each accepted item and once for each batch (idle dispatch on).
class ManualTimer final : public BatchTimer {
 public:
  [[nodiscard]] TimePoint now() const override {
    asked_.fetch_add(1);
    return TimePoint(Duration(now_.load()));
  }
  void arm(TimePoint when, std::function<void()> on_expiry) override {
    ++armed_count_;
    when_ = when;
    on_expiry_ = std::move(on_expiry);
  }
  void cancel() override { on_expiry_ = nullptr; }

  void advance(Duration by) {
    now_.fetch_add(by.count());
    if (on_expiry_ && TimePoint(Duration(now_.load())) >= when_) {
      std::exchange(on_expiry_, nullptr)();
    }
  }
  [[nodiscard]] int armed_count() const { return armed_count_; }
  [[nodiscard]] bool is_armed() const { return on_expiry_ != nullptr; }
  [[nodiscard]] TimePoint when() const { return when_; }
  [[nodiscard]] int asked() const { return asked_.load(); }

 private:
  std::atomic<Duration::rep> now_{Duration(std::chrono::hours(1)).count()};
  mutable std::atomic<int> asked_{0};
  TimePoint when_{};
  std::function<void()> on_expiry_;
  int armed_count_ = 0;
};

/// What became of one submit.
struct Ending {
  int calls = 0;
  int value = 0;
  std::exception_ptr error;

  /// A handler that writes here.
  [[nodiscard]] auto handler() {
    return [this](std::exception_ptr ended_with, int result) {
      ++calls;
      error = std::move(ended_with);
      value = result;
    };
  }
};

inline std::string what_of(const std::exception_ptr& error) {
  if (!error) {
    return "no error";
  }
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& each) {
    return each.what();
  }
}

inline bool is_aborted(const std::exception_ptr& error) {
  if (!error) {
    return false;
  }
  try {
    std::rethrow_exception(error);
  } catch (const boost::system::system_error& each) {
    return each.code() == boost::asio::error::operation_aborted;
  } catch (const std::exception&) {
    return false;
  }
}

inline bool is_microbatcher_error(const std::exception_ptr& error, ErrorCode code) {
  if (!error) {
    return false;
  }
  try {
    std::rethrow_exception(error);
  } catch (const MicrobatcherError& each) {
    return each.code() == code;
  } catch (const std::exception&) {
    return false;
  }
}

/// Batches that end when the test says so: `fn` parks each until `release`, then returns ten times each item.
class ParkedBatches {
 public:
  explicit ParkedBatches(boost::asio::io_context& io) : gate_(io, TimePoint::max()) {}

  [[nodiscard]] auto fn() {
    return [this](std::vector<int> items) { return park(std::move(items)); };
  }
  void release() { gate_.cancel(); }
  [[nodiscard]] const std::vector<std::vector<int>>& batches() const { return batches_; }

 private:
  boost::asio::awaitable<std::vector<int>> park(std::vector<int> items) {
    batches_.push_back(items);
    co_await gate_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    for (int& item : items) {
      item *= 10;
    }
    co_return items;
  }

  boost::asio::steady_timer gate_;
  std::vector<std::vector<int>> batches_;
};

class AsyncMicrobatcherTest : public testing::Test {
 protected:
  /// A function that notes its batches and returns ten times each item.
  [[nodiscard]] auto times_ten() {
    return [this](std::vector<int> items) {
      batches_.push_back(items);
      for (int& item : items) {
        item *= 10;
      }
      return items;
    };
  }
  void step() {
    io_.restart();
    io_.poll();
  }

  boost::asio::io_context io_;
  std::shared_ptr<ManualTimer> timer_ = std::make_shared<ManualTimer>();  // shared with the microbatcher
  std::vector<std::vector<int>> batches_;
};

using IntMicrobatcher = AsyncMicrobatcher<int, int>;
using Batches = std::vector<std::vector<int>>;

}  // namespace lockstep::test
