// Goal    A step launched as graphs gives the bits of one that is not, for every number of rows up to the largest that is captured, on every schedule; it
//         waits no more often, allocates nothing, and what cannot be captured is left out instead of failing the start.
// Method  As step_test.cpp, with steps that the plan allows graphs for. The dense model is one graph, the one with experts has exchanges between its graphs.
#include <array>
#include <cstdint>
#include <memory>
#include <thread>
#include <tuple>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/step/graphs/step_graphs.hpp"
#include "tests/cuda_sim/step_fixture.hpp"

namespace lockstep::tests {
namespace {

using ::testing::ElementsAre;

model::ModelConfig dense_config() {
  model::ModelConfig config = test_config();
  config.layer_is_sparse = {0, 0, 0};
  return config;
}

class GraphStep : public Step {
 protected:
  /// Graphs are launched for each chunk of the text, as for so many decodes.
  static std::unique_ptr<TeacherForcing> teacher_of(const model::ModelConfig& config, std::int32_t rows, GraphMode graphs) {
    const std::unique_ptr<model::WeightSource> source = model::make_dummy_weights(5);
    Result<std::unique_ptr<TeacherForcing>> made =
        TeacherForcing::create(config, *source, {.tokens_max = 32, .rows_per_step = rows, .device = "cuda", .graphs = graphs});
    LOCKSTEP_CHECK(made.has_value(), "teacher: {}", made.error().message);
    return std::move(*made);
  }
  const model::ModelConfig dense_ = dense_config();
};

TEST(GraphSizes, AreOneTwoFourEightMultiplesOfEightAndTheLargest) {
  EXPECT_THAT(scheduler::graph_sizes(30), ElementsAre(1, 2, 4, 8, 16, 24, 30));
  EXPECT_THAT(scheduler::graph_sizes(8), ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(scheduler::graph_sizes(1), ElementsAre(1));
  EXPECT_THAT(scheduler::graph_sizes(0), ElementsAre());
}

TEST_F(GraphStep, AModelWithoutExchangesIsOneGraphAndOneWithThemSeveral) {
  constexpr std::int32_t kShapes = 6;  // 1, 2, 4, 8, 16, 21
  const auto dense = teacher_of(dense_, 21, GraphMode::kFull)->graph_summary();
  EXPECT_EQ(dense.failure, "");
  EXPECT_EQ(dense.shapes, kShapes);
  EXPECT_EQ(dense.full, kShapes);
  const auto limited = teacher_of(dense_, 21, GraphMode::kPiecewise)->graph_summary();
  EXPECT_EQ(limited.full, 0);
  EXPECT_EQ(limited.piecewise, kShapes) << "no more than is wanted";
  const auto sparse = teacher_of(config_, 21, GraphMode::kFull)->graph_summary();
  EXPECT_EQ(sparse.failure, "");
  EXPECT_EQ(sparse.full, 0);
  EXPECT_EQ(sparse.piecewise, kShapes);
  EXPECT_EQ(teacher_of(config_, 21, GraphMode::kNone)->graph_summary().shapes, 0);
}

TEST_F(GraphStep, ItsBitsAreThoseWithoutGraphsForEveryNumberOfRows) {
  for (const model::ModelConfig& config : {config_, dense_}) {
    const Logits expected = logits_of(*teacher_of(config, 21, GraphMode::kNone));
    for (const std::int32_t rows : {1, 3, 5, 8, 9, 21}) {  // the last chunk has fewer: padded
      const std::unique_ptr<TeacherForcing> taught = teacher_of(config, rows, GraphMode::kFull);
      const std::uint64_t before = taught->usage().graph_launches;
      EXPECT_TRUE(same_bits(logits_of(*taught), expected)) << rows << " rows";
      EXPECT_GT(taught->usage().graph_launches, before);
      const bool has_exchanges = config.layer_is_sparse != dense_.layer_is_sparse;
      EXPECT_EQ(taught->last_costs().graph_mode, has_exchanges ? GraphMode::kPiecewise : GraphMode::kFull);
    }
  }
}

TEST_F(GraphStep, EveryScheduleGivesTheSameBits) {
  for (const model::ModelConfig& config : {config_, dense_}) {
    const Logits expected = logits_of(*teacher_of(config, 21, GraphMode::kNone));
    const std::unique_ptr<TeacherForcing> taught = teacher_of(config, 5, GraphMode::kFull);
    set_schedule(kEarly);
    EXPECT_TRUE(same_bits(logits_of(*taught), expected)) << "early";
    for (std::uint64_t seed = 1; seed <= schedule_seeds(); ++seed) {
      set_schedule(kRandom, seed);
      EXPECT_TRUE(same_bits(logits_of(*taught), expected)) << "seed " << seed;
    }
    set_schedule(kLate);
  }
}

TEST_F(GraphStep, TheHostWaitsOnceForAWholeGraphAndOtherwiseAsOftenAsWithout) {
  for (const auto& [config, graphs, waits] : {std::tuple(dense_, std::uint64_t{1}, std::uint64_t{1}),
                                              // Before the first exchange, behind the dense layer to the next one's, and the logits.
                                              std::tuple(config_, std::uint64_t{3}, std::uint64_t{kSparseLayers + 1})}) {
    const std::unique_ptr<TeacherForcing> taught = teacher_of(config, 21, GraphMode::kFull);
    static_cast<void>(logits_of(*taught));
    const std::uint64_t before = host_waits();
    const device::DeviceUsage used = taught->usage();
    static_cast<void>(logits_of(*taught));
    EXPECT_EQ(host_waits() - before, waits);
    EXPECT_EQ(taught->usage().graph_launches - used.graph_launches, graphs);
    EXPECT_EQ(taught->usage().memory_used_bytes, used.memory_used_bytes) << "a warm step allocates nothing";
  }
}

TEST_F(GraphStep, TheRanksTakeTheLeastThatOneOfThemCanDo) {
  // What a rank can do differs by failed captures; here by what each is told, which engines refuse to let differ.
  for (const auto& [other, full, piecewise] : {std::tuple(GraphMode::kFull, 6, 0), std::tuple(GraphMode::kPiecewise, 0, 6)}) {
    constexpr int kRanks = 2;
    comm::LocalGroup group(kRanks);
    std::array<scheduler::GraphSummary, kRanks> agreed;
    {
      std::vector<std::jthread> ranks;
      for (int rank = 0; rank < kRanks; ++rank) {
        ranks.emplace_back([&, rank, most = rank == 0 ? GraphMode::kFull : other] {
          const std::unique_ptr<model::WeightSource> source = model::make_dummy_weights(5);
          const auto made = TeacherForcing::create(
              dense_, *source, {.tokens_max = 32, .rows_per_step = 21, .device = "cuda", .graphs = most, .group = &group, .world_size = kRanks, .rank = rank});
          ASSERT_TRUE(made) << made.error().message;
          agreed[static_cast<std::size_t>(rank)] = (*made)->graph_summary();
        });
      }
    }
    for (const scheduler::GraphSummary& summary : agreed) {
      EXPECT_EQ(summary.full, full);
      EXPECT_EQ(summary.piecewise, piecewise);
    }
  }
}

TEST(GraphReport, SaysHowManySizesAndWhyOthersHaveNone) {
  EXPECT_EQ(scheduler::to_string(scheduler::GraphSummary{}), "");
  EXPECT_EQ(to_string(scheduler::GraphSummary{.shapes = 5, .full = 0, .piecewise = 4, .failure = "no room"}),
            "CUDA graphs for 5 sizes of decode steps: 0 as one graph, 4 as graphs between the exchanges, 1 without; this rank could not capture: no room");
}

TEST_F(GraphStep, EachOfTheseWaitsIsNeeded) {
  for (std::uint64_t ordinal = 1; ordinal <= kSparseLayers + 1; ++ordinal) {
    SCOPED_TRACE(fmt::format("wait {}", ordinal));
    EXPECT_EXIT(
        {
          const std::unique_ptr<TeacherForcing> taught = teacher_of(config_, 21, GraphMode::kFull);
          const Logits expected = logits_of(*taught);
          skip_host_wait(ordinal);
          leave(!same_bits(logits_of(*taught), expected));
        },
        is_failure, kNoticed);
  }
}

}  // namespace
}  // namespace lockstep::tests
