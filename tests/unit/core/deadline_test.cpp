// Goal    A deadline expires exactly at its limit, counts from a watched peer's last progress, and ends early with the watch's reason.
// Method  A clock that the test moves, and a watch whose answers it sets.
#include "lockstep/core/deadline.hpp"

#include <gtest/gtest.h>

#include "tests/support/manual_clock.hpp"

namespace lockstep {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class FakeWatch final : public Watch {
 public:
  [[nodiscard]] Status failure() const override { return status; }
  [[nodiscard]] TimePoint last_progress() const override { return progress; }

  Status status;
  TimePoint progress{};
};

TEST(Deadline, LetsTheWaitGoOnUntilItsLimitAndNoLonger) {
  test::ManualClock clock;
  const Deadline deadline = Deadline::after(seconds(2), nullptr, clock);
  EXPECT_TRUE(deadline.check());
  clock.advance(seconds(2) - Duration(1));
  EXPECT_TRUE(deadline.check());
  clock.advance(Duration(1));
  const Status expired = deadline.check();
  ASSERT_FALSE(expired);
  EXPECT_EQ(expired.error().code, ErrorCode::kTimeout);
  EXPECT_EQ(expired.error().message, "no progress within 2.000 s");
}

TEST(Deadline, OfZeroHasExpiredAtOnce) {
  const test::ManualClock clock;
  EXPECT_FALSE(Deadline::after(Duration(0), nullptr, clock).check());
}

TEST(Deadline, OfTheLongestDurationNeverExpires) {
  test::ManualClock clock;
  const Deadline deadline = Deadline::after(Duration::max(), nullptr, clock);
  EXPECT_EQ(deadline.next_check(), TimePoint::max());
  clock.advance(std::chrono::hours(24 * 365 * 100));
  EXPECT_TRUE(deadline.check());
}

TEST(Deadline, CountsFromTheLastProgressOfItsWatch) {
  test::ManualClock clock;
  FakeWatch watch;
  const Deadline deadline = Deadline::after(seconds(1), &watch, clock);
  clock.advance(milliseconds(900));
  watch.progress = clock.now();
  clock.advance(milliseconds(900));
  EXPECT_TRUE(deadline.check()) << "the peer moved 0.9 s ago: that is not a stall of 1 s";
  clock.advance(milliseconds(100));
  EXPECT_EQ(deadline.check().error().code, ErrorCode::kTimeout);
}

TEST(Deadline, IgnoresProgressFromBeforeItBegan) {
  test::ManualClock clock;
  FakeWatch watch;
  watch.progress = clock.now() - seconds(30);
  const Deadline deadline = Deadline::after(seconds(1), &watch, clock);
  clock.advance(milliseconds(999));
  EXPECT_TRUE(deadline.check());
  clock.advance(milliseconds(1));
  EXPECT_FALSE(deadline.check());
}

TEST(Deadline, EndsWithTheReasonOfItsWatchBeforeItsLimit) {
  const test::ManualClock clock;
  FakeWatch watch;
  watch.status = Error{ErrorCode::kPeerLost, "rank 1: connection closed", 1};
  const Status status = Deadline::after(seconds(60), &watch, clock).check();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(status.error().message, "rank 1: connection closed");
  EXPECT_EQ(status.error().rank, 1);
}

TEST(Deadline, NamesTheWatchesReasonEvenWhenTheLimitHasPassedToo) {
  test::ManualClock clock;
  FakeWatch watch;
  const Deadline deadline = Deadline::after(seconds(1), &watch, clock);
  clock.advance(seconds(5));
  watch.status = Error{ErrorCode::kCancelled, "shutting down"};
  EXPECT_EQ(deadline.check().error().code, ErrorCode::kCancelled);
}

TEST(Deadline, WithoutAWatchIsLookedAtAgainAtItsExpiryOnly) {
  const test::ManualClock clock;
  EXPECT_EQ(Deadline::after(seconds(2), nullptr, clock).next_check(), clock.now() + seconds(2));
}

TEST(Deadline, WithAWatchIsLookedAtAgainWithinFiveMillisecondsOrAtItsExpiry) {
  const test::ManualClock clock;
  const FakeWatch watch;
  EXPECT_EQ(Deadline::after(seconds(2), &watch, clock).next_check(), clock.now() + milliseconds(5));
  EXPECT_EQ(Deadline::after(milliseconds(3), &watch, clock).next_check(), clock.now() + milliseconds(3));
}

TEST(SteadyClock, NeverGoesBack) {
  const Clock& clock = SteadyClock::instance();
  TimePoint last = clock.now();
  for (int i = 0; i < 1000; ++i) {
    const TimePoint now = clock.now();
    ASSERT_GE(now, last);
    last = now;
  }
}

}  // namespace
}  // namespace lockstep
