// Goal    While micro-batches overlap, the progress that peers and /health see is that of the collective, not of the compute beside it.
// Method  The second dispatch is held by a hook until the first micro-batch has computed all that it can; then nothing can move but the dispatch, and what the
//         progress says is compared.
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"
#include "tests/support/teacher_forcing.hpp"

namespace lockstep::scheduler {
namespace {

TEST(StepExecutor, ProgressShowsTheCollectiveThatARankWaitsInWhileTheOtherMicroBatchComputes) {
  // embed A, embed B, attention A, attention B, dispatch A (its begin, its wait and its end), dispatch B (its begin and its wait), experts A: all that can
  // happen before dispatch B ends.
  constexpr std::uint64_t kTicks = 10;
  int waits = 0;
  const model::ModelConfig config = tests::small_config();
  const std::unique_ptr<model::WeightSource> source = model::make_dummy_weights(5);
  const comm::StepProgress* progress = nullptr;
  std::optional<comm::ProgressReport> seen;
  tests::TeacherForcingOptions options{.tokens_max = 16, .rows_per_step = 16, .micro_batches = 2};
  options.hooks.before = [&](int, std::string_view operation) {
    if (operation != "wait_all_to_all" || ++waits != 2) {
      return Status{};
    }
    const Deadline deadline = Deadline::after(std::chrono::seconds(100));
    while (progress->report().ticks < kTicks && deadline.check()) {
      std::this_thread::yield();
    }
    seen = progress->report();
    return Status{};
  };
  const Result<std::unique_ptr<tests::TeacherForcing>> teacher = tests::TeacherForcing::create(config, *source, options);
  ASSERT_TRUE(teacher) << teacher.error().message;
  progress = &(*teacher)->progress();
  ASSERT_TRUE((*teacher)->logits(std::vector<std::int32_t>{1, 2, 3, 4, 5, 6}));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->ticks, kTicks);
  EXPECT_EQ(seen->phase, comm::StepPhase::kDispatching);
  EXPECT_EQ(seen->layer, 0);
  EXPECT_EQ((*teacher)->progress().report().phase, comm::StepPhase::kComputing) << "the head was last";
}

}  // namespace
}  // namespace lockstep::scheduler
