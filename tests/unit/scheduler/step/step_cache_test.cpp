// Goal    Every step that ranks can agree on finds what was prepared for its shape, and shapes are few.
// Method  All row counts up to the limit, with one and two micro-batches, against programs built anew.
#include "scheduler/step/step_cache.hpp"

#include <set>

#include <gtest/gtest.h>

namespace lockstep::scheduler {
namespace {

bool same(const ProgramEntry& a, const ProgramEntry& b) {
  return a.stage == b.stage && a.micro_batch == b.micro_batch && a.layer == b.layer && a.stream == b.stream && a.wait == b.wait && a.record == b.record;
}

TEST(StepCache, HasTheProgramOfEveryShapeUpToTheLimit) {
  const std::vector<std::uint8_t> layers{1, 0, 1};
  const StepCache cache(layers, 100, 2);
  std::set<std::string> shapes;
  for (std::int32_t rows = 0; rows <= 100; ++rows) {
    for (const bool decodes : {false, true}) {
      const BatchDescriptor shape = step_shape(rows, decodes);
      EXPECT_GE(shape.num_tokens, rows);
      EXPECT_EQ(shape.uniform, decodes);
      shapes.insert(shape.key());
      const PreparedStep& step = cache.find(shape);
      ASSERT_EQ(step.programs.size(), 2U);
      for (const std::int32_t count : {1, 2}) {
        const std::vector<ProgramEntry> expected = build_step_program(layers, count);
        const std::span<const ProgramEntry> found = step.programs[static_cast<std::size_t>(count - 1)];
        EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin(), expected.end(), same));
      }
    }
  }
  EXPECT_EQ(shapes.size(), 16U) << "1, 2, 4 ... 128, with prompts and without";
  EXPECT_EQ(cache.size(), shapes.size());
}

TEST(StepCacheDeathTest, AnotherShapeIsABug) {
  const StepCache cache(std::vector<std::uint8_t>{1}, 8, 1);
  EXPECT_DEATH(static_cast<void>(cache.find(step_shape(9, false))), "tokens=16");
}

}  // namespace
}  // namespace lockstep::scheduler
