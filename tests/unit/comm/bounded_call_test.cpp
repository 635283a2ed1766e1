// Goal    A call that does not return does not hold up its caller, and one that returns late harms nobody.
// Method  Work that is held by a latch until the caller has given up.
#include "comm/mpi/bounded_call.hpp"

#include <atomic>
#include <latch>
#include <memory>

#include <gtest/gtest.h>

namespace lockstep::comm {
namespace {

TEST(CallWithin, WaitsForWorkThatReturns) {
  std::atomic<bool> ran{false};
  EXPECT_TRUE(call_within(std::chrono::hours(1), [&] { ran = true; }));
  EXPECT_TRUE(ran);
}

TEST(CallWithin, TakesALimitOfForEver) {
  EXPECT_TRUE(call_within(Duration::max(), [] {}));
}

TEST(CallWithin, LeavesWorkBehindThatDoesNotReturn) {
  struct Gates {
    std::latch open{1};
    std::latch passed{1};
  };
  const auto gates = std::make_shared<Gates>();
  EXPECT_FALSE(call_within(std::chrono::milliseconds(1), [gates] {
    gates->open.wait();
    gates->passed.count_down();
  }));
  gates->open.count_down();
  gates->passed.wait();
}

}  // namespace
}  // namespace lockstep::comm
