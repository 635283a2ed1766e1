// Goal    LOCKSTEP_CHECK aborts and says where and why, in every build; it costs nothing else when the condition holds.
// Method  Death tests.
#include "lockstep/core/check.hpp"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(CheckDeathTest, AbortsWithConditionPlaceAndValuesWhenItFails) {
  const int rows = 9;
  const int capacity = 8;
  EXPECT_DEATH(LOCKSTEP_CHECK(rows <= capacity, "rank {}: {} rows, capacity {}", 1, rows, capacity),
               "check_test.cpp:[0-9]+: rows <= capacity: rank 1: 9 rows, capacity 8");
}

TEST(Check, EvaluatesItsConditionOnceAndItsMessageNeverWhenItHolds) {
  int conditions = 0;
  int messages = 0;
  const auto message = [&messages] { return ++messages; };
  LOCKSTEP_CHECK(++conditions == 1, "message {}", message());
  EXPECT_EQ(conditions, 1);
  EXPECT_EQ(messages, 0);
}

}  // namespace
}  // namespace lockstep
