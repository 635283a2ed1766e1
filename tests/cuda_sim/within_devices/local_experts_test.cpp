// Goal    A rank alone brings rows to their experts on the device: the bits of the exchange, for every number of rows, micro-batches and schedule, while the
//         host waits once a step; and with graphs a step of decodes is one of them, experts too.
// Method  As step_test.cpp, against steps whose rows go through an exchange.
#include <cstdint>
#include <memory>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cuda_sim/step_fixture.hpp"

namespace lockstep::tests {
namespace {

class LocalExperts : public Step {
 protected:
  std::unique_ptr<TeacherForcing> alone(TeacherForcingOptions options) const {
    options.device = "cuda";
    options.within_device = true;
    return teacher(options);
  }
  Logits exchanged() const { return logits_of(*teacher({.device = "cuda"})); }
};

TEST_F(LocalExperts, GiveTheBitsOfTheExchangeForEveryNumberOfRowsAndMicroBatches) {
  const Logits expected = exchanged();
  for (const std::int32_t rows : {1, 2, 5, 21}) {
    for (const std::int32_t micro_batches : {1, 2, 4}) {
      EXPECT_TRUE(same_bits(logits_of(*alone({.rows_per_step = rows, .micro_batches = micro_batches})), expected)) << rows << " rows, " << micro_batches;
    }
    EXPECT_TRUE(same_bits(logits_of(*alone({.rows_per_step = rows, .graphs = GraphMode::kFull})), expected)) << rows << " rows, graphs";
  }
}

TEST_F(LocalExperts, EveryScheduleGivesTheSameBits) {
  const Logits expected = exchanged();
  for (const GraphMode graphs : {GraphMode::kNone, GraphMode::kFull}) {
    const std::unique_ptr<TeacherForcing> taught = alone({.rows_per_step = 5, .graphs = graphs});
    set_schedule(kEarly);
    EXPECT_TRUE(same_bits(logits_of(*taught), expected)) << "early";
    for (std::uint64_t seed = 1; seed <= schedule_seeds(); ++seed) {
      set_schedule(kRandom, seed);
      EXPECT_TRUE(same_bits(logits_of(*taught), expected)) << "seed " << seed;
    }
    set_schedule(kLate);
  }
}

TEST_F(LocalExperts, TheHostWaitsOnceAStepAndOneGraphIsTheStep) {
  for (const GraphMode graphs : {GraphMode::kNone, GraphMode::kFull}) {
    const std::unique_ptr<TeacherForcing> taught = alone({.rows_per_step = 21, .graphs = graphs});
    static_cast<void>(logits_of(*taught));
    const std::uint64_t before = host_waits();
    const device::DeviceUsage used = taught->usage();
    static_cast<void>(logits_of(*taught));
    EXPECT_EQ(host_waits() - before, 1U);
    EXPECT_EQ(taught->usage().graph_launches - used.graph_launches, graphs == GraphMode::kFull ? 1U : 0U);
    EXPECT_EQ(taught->last_costs().graph_mode, graphs);
    EXPECT_EQ(taught->usage().memory_used_bytes, used.memory_used_bytes) << "a warm step allocates nothing";
    const scheduler::GraphSummary summary = taught->graph_summary();
    EXPECT_EQ(summary.failure, "");
    EXPECT_EQ(summary.full, summary.shapes);
  }
}

TEST_F(LocalExperts, ThatWaitIsNeeded) {
  for (const GraphMode graphs : {GraphMode::kNone, GraphMode::kFull}) {
    EXPECT_EXIT(
        {
          const std::unique_ptr<TeacherForcing> taught = alone({.graphs = graphs});
          const Logits expected = logits_of(*taught);
          skip_host_wait(1);
          leave(!same_bits(logits_of(*taught), expected));
        },
        is_failure, kNoticed);
  }
}

}  // namespace
}  // namespace lockstep::tests
