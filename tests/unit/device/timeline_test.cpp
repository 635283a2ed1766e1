// Goal    A timeline says which points were reached and which of them carry an error, also after the error was cleared and after the stream is gone.
// Method  One thread plays the stream by calling submit, complete and fail.
#include "device/host/streams/timeline.hpp"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

namespace lockstep::device::host {
namespace {

using std::chrono_literals::operator""ms;

/// A clock that stands still until told.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return now_; }
  TimePoint now_{};
};

void run_one(Timeline& timeline, bool succeeds = true) {
  timeline.submit();
  if (!succeeds) {
    timeline.fail({ErrorCode::kUnsupported, "made to fail"});
  }
  timeline.complete();
}

TEST(Timeline, PointsAreReachedInOrder) {
  Timeline timeline(0);
  EXPECT_TRUE(timeline.reached(0));
  timeline.submit();
  timeline.submit();
  EXPECT_FALSE(timeline.reached(1));
  timeline.complete();
  EXPECT_TRUE(timeline.reached(1));
  EXPECT_FALSE(timeline.reached(2));
}

TEST(Timeline, AnErrorIsCarriedByThePointsFromTheFailureToItsClearing) {
  Timeline timeline(0);
  run_one(timeline);
  run_one(timeline, false);
  run_one(timeline);
  EXPECT_TRUE(timeline.status_at(1));
  EXPECT_EQ(timeline.status_at(2).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(timeline.status_at(3).error().code, ErrorCode::kUnsupported);

  EXPECT_EQ(timeline.clear_failure().error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(timeline.clear_failure());
  EXPECT_FALSE(timeline.status_at(3)) << "an event recorded during the failure keeps it";
  EXPECT_TRUE(timeline.status_at(timeline.submitted())) << "one recorded right after the clearing has none";
  run_one(timeline);
  EXPECT_TRUE(timeline.status_at(timeline.submitted()));
}

TEST(Timeline, OnlyTheFirstErrorCounts) {
  Timeline timeline(0);
  timeline.submit();
  timeline.fail({ErrorCode::kCancelled, "first"});
  timeline.fail({ErrorCode::kInternal, "second"});
  timeline.complete();
  EXPECT_EQ(timeline.clear_failure().error().message, "first");
}

TEST(Timeline, LaterFailuresDoNotTakeThePlaceOfEarlierOnes) {
  Timeline timeline(0);
  run_one(timeline, false);
  const std::uint64_t first = timeline.submitted();
  ASSERT_FALSE(timeline.clear_failure());
  run_one(timeline);
  const std::uint64_t healthy = timeline.submitted();
  run_one(timeline, false);
  ASSERT_FALSE(timeline.clear_failure());
  EXPECT_FALSE(timeline.status_at(first));
  EXPECT_TRUE(timeline.status_at(healthy));
}

TEST(Timeline, AbandoningReachesAllPointsAndCancelsThoseNotReached) {
  Timeline timeline(0);
  run_one(timeline);
  timeline.submit();
  timeline.abandon("s");
  EXPECT_TRUE(timeline.reached(2));
  EXPECT_TRUE(timeline.status_at(1));
  const Status cancelled = timeline.status_at(2);
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  EXPECT_NE(cancelled.error().message.find("\"s\""), std::string::npos);
}

TEST(Timeline, AWaitEndsByItsDeadlineOnTheDeadlinesOwnClock) {
  Timeline timeline(10);
  timeline.submit();
  ManualClock clock;
  const Deadline deadline = Deadline::after(10ms, nullptr, clock);
  clock.now_ += 10ms;
  const Status status = timeline.wait(1, deadline);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kTimeout);
}

TEST(Timeline, AStoppedWaitReturnsWithoutThePoint) {
  Timeline timeline(0);
  timeline.submit();
  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(timeline.wait(1, stop.get_token()));
  EXPECT_FALSE(timeline.wait_for_work(stop.get_token()));
}

TEST(Timeline, ClearingAFailureNeverLooksLikeWorkToTheStreamsThread) {
  for (int round = 0; round < 100; ++round) {
    Timeline timeline(100000);  // so that the thread looks without the lock all the while
    std::atomic<bool> saw_work = false;
    {
      const std::jthread stream([&](const std::stop_token& stop) { saw_work = timeline.wait_for_work(stop); });
      for (int i = 0; i < 200; ++i) {
        timeline.fail({ErrorCode::kInternal, "on purpose"});
        EXPECT_FALSE(timeline.clear_failure());
      }
    }
    ASSERT_FALSE(saw_work) << "round " << round;
  }
}

}  // namespace
}  // namespace lockstep::device::host
