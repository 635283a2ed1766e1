// Goal    A stage's time without a core is what its thread did not run for, and never more than the stage took.
// Method  A thread that waits for the test, and one that computes until its own CPU clock says enough: both bound the answer however busy the machine is.
#include "scheduler/step/timing/stage_clock.hpp"

#include <future>
#include <thread>

#include <gtest/gtest.h>

namespace lockstep::scheduler {
namespace {

using std::chrono::milliseconds;

void compute_for(Duration ran) {
  const Duration until = StageClock::thread_ran() + ran;
  while (StageClock::thread_ran() < until) {
  }
}

TEST(StageClock, AThreadThatWaitsHasNoCore) {
  std::promise<void> started;
  std::promise<void> go_on;
  std::future<StageClock::Time> measured = std::async(std::launch::async, [&started, waited = go_on.get_future()] {
    StageClock clock;
    clock.start();
    started.set_value();
    waited.wait();
    return clock.stop();
  });
  started.get_future().wait();
  const TimePoint until = SteadyClock::instance().now() + milliseconds(50);
  while (SteadyClock::instance().now() < until) {
    std::this_thread::yield();
  }
  go_on.set_value();
  const StageClock::Time time = measured.get();
  EXPECT_LE(time.off_core, time.end - time.begin);
  EXPECT_GE(time.off_core, milliseconds(40));  // it ran for the moments around its wait alone
}

TEST(StageClock, WhatItComputedIsNotLost) {
  StageClock clock;
  clock.start();
  compute_for(milliseconds(20));
  const StageClock::Time time = clock.stop();
  EXPECT_GE(time.end - time.begin, milliseconds(20));
  EXPECT_LE(time.off_core, time.end - time.begin - milliseconds(20));
  // Nor what it runs for between stages.
  compute_for(milliseconds(20));
  clock.start();
  compute_for(milliseconds(20));
  const StageClock::Time second = clock.stop();
  EXPECT_LE(second.off_core, second.end - second.begin - milliseconds(20));
}

TEST(StageClock, ShortStagesAreReadTogether) {
  StageClock clock;
  clock.start();
  StageClock::Time time = clock.stop();
  EXPECT_EQ(time.off_core, Duration{});
  Duration stages = time.end - time.begin;
  for (int i = 0; i < 10'000 && stages < StageClock::kReadEvery; ++i) {
    clock.start();
    time = clock.stop();
    stages += time.end - time.begin;
    EXPECT_LE(time.off_core, time.end - time.begin);
  }
}

}  // namespace
}  // namespace lockstep::scheduler
