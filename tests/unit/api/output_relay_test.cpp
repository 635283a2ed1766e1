// Goal    Each event that the step thread delivers reaches the consumer once and in order, by one wake however many wait; also where no descriptor is left.
// Method  Delivered before and while the Asio thread runs; a process at its limit of open descriptors makes the relay without its own.
#include "daemon/api/output_relay.hpp"

#include <sys/resource.h>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

constexpr std::int32_t kTokens = 2000;

class OutputRelayTest : public ::testing::Test {
 protected:
  /// Keeps tokens, and ends the loop with the last of them.
  OutputRelay::Consumer keep() {
    return [this](std::span<const RelayedEvent> events) {
      ++batches_;
      for (const RelayedEvent& event : events) {
        tokens_.push_back(event.token);
      }
      if (tokens_.size() == kTokens) {
        io_.stop();
      }
    };
  }

  static void deliver(OutputRelay& relay, std::int32_t first, std::int32_t count) {
    for (std::int32_t token = first; token < first + count; ++token) {
      const scheduler::TokenEvent event{.request = 1, .token = token};
      relay.deliver({&event, 1});
    }
  }

  void expect_all_in_order() const {
    ASSERT_EQ(tokens_.size(), static_cast<std::size_t>(kTokens));
    for (std::int32_t token = 0; token < kTokens; ++token) {
      ASSERT_EQ(tokens_[static_cast<std::size_t>(token)], token);
    }
  }

  boost::asio::io_context io_;
  std::vector<std::int32_t> tokens_;
  int batches_ = 0;
};

TEST_F(OutputRelayTest, WhatWaitsComesWithOneWake) {
  OutputRelay relay(io_, keep());
  deliver(relay, 0, kTokens);
  EXPECT_TRUE(tokens_.empty());
  io_.run();
  expect_all_in_order();
  EXPECT_EQ(batches_, 1);
}

TEST_F(OutputRelayTest, EventsFromAnotherThreadComeOnceAndInOrder) {
  OutputRelay relay(io_, keep());
  const std::jthread steps([&relay] { deliver(relay, 0, kTokens); });
  io_.run();
  expect_all_in_order();
}

TEST_F(OutputRelayTest, WithoutADescriptorOfItsOwnItWakesAllTheSame) {
  const boost::asio::posix::stream_descriptor first(io_);  // for the descriptors of the loop itself, which are made with the first thing that may wait
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  OutputRelay relay(io_, keep());
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(io_.poll(), 0U);
  EXPECT_TRUE(io_.stopped()) << "it waits for a descriptor that it was not to get";
  io_.restart();
  const std::jthread steps([&relay] { deliver(relay, 0, kTokens); });
  const auto work = boost::asio::make_work_guard(io_);
  io_.run();
  expect_all_in_order();
}

}  // namespace
}  // namespace lockstep::daemon
