// Goal    The number of prompt tokens beside streams follows what steps cost, and lost time does not mislead it.
// Method  Steps of made-up durations.
#include "scheduler/batch/prompt_pace.hpp"

#include <gtest/gtest.h>

namespace lockstep::scheduler {
namespace {

TEST(PromptPace, IsAGuessBeforeAnythingWasMeasured) {
  PromptPace pace;
  EXPECT_EQ(pace.tokens(), PromptPace::kTokensAtFirst);
  pace.record(5.0, 100, 100);  // of a step with prompts alone nothing follows
  EXPECT_EQ(pace.tokens(), PromptPace::kTokensAtFirst);
  pace.record(0.0, 0, 0);  // nor from a clock that stands
  EXPECT_EQ(pace.tokens(), PromptPace::kTokensAtFirst);
}

TEST(PromptPace, AddsAThirdOfTheStep) {
  PromptPace pace;
  pace.record(20.0, 0, 0);
  pace.record(20.0 + 0.125 * 64, 64, 64);
  EXPECT_EQ(pace.tokens(), 56);  // 56 * 0.125 ms = 7 ms, 0.35 of 20
}

TEST(PromptPace, FollowsStepsThatGetFaster) {
  PromptPace pace;
  pace.record(20.0, 0, 0);
  pace.record(28.0, 64, 64);
  for (int i = 0; i < 100; ++i) {
    pace.record(10.0, 0, 0);
    pace.record(10.0 + 0.125 * 64, 64, 64);
  }
  EXPECT_NEAR(pace.tokens(), 28, 1);
}

TEST(PromptPace, IsAtLeastABlock) {
  PromptPace pace;
  pace.record(1.0, 0, 0);
  pace.record(101.0, 10, 10);
  EXPECT_EQ(pace.tokens(), PromptPace::kTokensMin);
}

TEST(PromptPace, LearnsNothingOfItsTokensFromStepsThatWaitedForOthers) {
  PromptPace pace;
  pace.record(20.0, 0, 0);
  pace.record(200.0, 10, 500);
  pace.record(200.0, 250, 500);
  EXPECT_EQ(pace.tokens(), PromptPace::kTokensAtFirst);
}

TEST(PromptPace, AStepThatLostItsCoreCountsLittle) {
  PromptPace pace;
  pace.record(20.0, 0, 0);
  pace.record(28.0, 64, 64);
  pace.record(2000.0, 64, 64);
  EXPECT_GE(pace.tokens(), 42);
  pace.record(5000.0, 0, 0);
  EXPECT_LE(pace.tokens(), 60);
}

}  // namespace
}  // namespace lockstep::scheduler
