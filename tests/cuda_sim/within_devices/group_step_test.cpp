// Goal    Decodes of several ranks over NCCL as one graph a step, experts and collectives too: the bits of steps with exchanges, for every number of ranks and
//         rows, with ranks that have none, on every schedule; the host of each rank waits once a step, and needs to.
// Method  As step_test.cpp, with ranks as threads that take one text together, each on a simulated device of its own.
#include <barrier>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cuda_sim/step_fixture.hpp"
#include "tests/support/group_harness.hpp"

namespace lockstep::tests {
namespace {

class GroupStep : public Step {
 protected:
  using Body = std::function<void(TeacherForcing& teacher, int rank)>;
  using Adjust = std::function<void(TeacherForcingOptions& options, int rank)>;

  void run_ranks(int ranks, const TeacherForcingOptions& options, const Body& body) const { run_ranks(config_, ranks, options, body); }
  /// All ranks at once, each on a thread; `options` of each but for what makes it a rank.
  static void run_ranks(const model::ModelConfig& config, int ranks, const TeacherForcingOptions& options, const Body& body, const Adjust& adjust = {}) {
    comm::LocalGroup group(ranks);
    std::vector<std::unique_ptr<comm::Communicator>> communicators = make_communicators(group, ranks);
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        TeacherForcingOptions mine = options;
        mine.communicator = communicators[static_cast<std::size_t>(rank)].get();
        mine.world_size = ranks;
        mine.rank = rank;
        if (adjust) {
          adjust(mine, rank);
        }
        body(*teacher(config, mine), rank);
        communicators[static_cast<std::size_t>(rank)].reset();  // all together: each waits for the others' ends
      });
    }
  }
  static TeacherForcingOptions graphs_of(std::int32_t rows, GraphMode graphs = GraphMode::kFull) {
    return {.rows_per_step = rows, .device = "cuda", .graphs = graphs, .within_device = graphs == GraphMode::kFull};
  }
  Logits expected() const { return logits_of(*teacher({.device = "cuda"})); }
};

TEST_F(GroupStep, GivesTheBitsOfExchangesForEveryNumberOfRanksAndRows) {
  const Logits alone = expected();
  for (const int ranks : {2, 4}) {
    run_ranks(ranks, graphs_of(21, GraphMode::kNone), [&](TeacherForcing& taught, int rank) {
      EXPECT_TRUE(same_bits(logits_of(taught), alone)) << "rank " << rank << " of " << ranks << " by exchanges";
    });
    for (const std::int32_t rows : {1, 5, 21}) {  // the last chunk has fewer: padded
      run_ranks(ranks, graphs_of(rows), [&](TeacherForcing& taught, int rank) {
        EXPECT_TRUE(same_bits(logits_of(taught), alone)) << "rank " << rank << " of " << ranks << ", " << rows << " rows";
        EXPECT_EQ(taught.last_costs().graph_mode, GraphMode::kFull);
        EXPECT_GT(taught.last_costs().wire_bytes, 0U);
        const scheduler::GraphSummary summary = taught.graph_summary();
        EXPECT_EQ(summary.failure, "");
        EXPECT_EQ(summary.full, summary.shapes);
      });
    }
  }
}

TEST_F(GroupStep, RanksWithoutRowsComputeForTheOthers) {
  const Logits alone = expected();
  TeacherForcingOptions options = graphs_of(5);
  options.idle_ranks = 1;
  run_ranks(2, options, [&](TeacherForcing& taught, int rank) {
    const Logits found = logits_of(taught);
    EXPECT_TRUE(same_bits(found, rank == 0 ? alone : Logits{})) << "rank " << rank;
    EXPECT_EQ(taught.last_costs().graph_mode, GraphMode::kFull);
  });
}

TEST_F(GroupStep, RanksWithoutExpertsTakeTheSameSteps) {
  model::ModelConfig config = config_;
  config.expert_count = 3;
  const Logits alone = logits_of(*teacher(config, {.device = "cuda"}));
  run_ranks(config, 4, graphs_of(21), [&](TeacherForcing& taught, int rank) {
    EXPECT_TRUE(same_bits(logits_of(taught), alone)) << "rank " << rank;
    EXPECT_EQ(taught.last_costs().graph_mode, GraphMode::kFull);
  });
}

TEST_F(GroupStep, WhatOneRankCannotCaptureNoRankLaunches) {
  // What a rank can do differs by failed captures; here by what it is told, which engines refuse to let differ.
  const Logits alone = expected();
  run_ranks(
      config_, 2, graphs_of(5),
      [&](TeacherForcing& taught, int rank) {
        EXPECT_TRUE(same_bits(logits_of(taught), alone)) << "rank " << rank;
        EXPECT_EQ(taught.last_costs().graph_mode, GraphMode::kPiecewise);
        const scheduler::GraphSummary summary = taught.graph_summary();
        EXPECT_EQ(summary.full, 0);
        EXPECT_EQ(summary.piecewise, summary.shapes);
      },
      [](TeacherForcingOptions& options, int rank) { options.graphs = rank == 1 ? GraphMode::kPiecewise : GraphMode::kFull; });
}

TEST_F(GroupStep, EveryScheduleGivesTheSameBits) {
  const Logits alone = expected();
  constexpr int kRanks = 2;
  std::barrier all(kRanks);
  run_ranks(kRanks, graphs_of(5), [&](TeacherForcing& taught, int rank) {
    for (std::uint64_t seed = 0; seed <= schedule_seeds(); ++seed) {
      if (rank == 0) {
        set_schedule(seed == 0 ? kEarly : kRandom, seed);
      }
      all.arrive_and_wait();
      EXPECT_TRUE(same_bits(logits_of(taught), alone)) << "rank " << rank << ", seed " << seed << " (0: early)";
      all.arrive_and_wait();
    }
  });
  set_schedule(kLate);
}

TEST_F(GroupStep, EachHostWaitsOnceAndNoStreamForAnother) {
  constexpr int kRanks = 2;
  std::barrier all(kRanks);
  std::uint64_t waits = 0;
  std::uint64_t streams_waits = 0;
  run_ranks(kRanks, graphs_of(21), [&](TeacherForcing& taught, int rank) {
    static_cast<void>(logits_of(taught));
    all.arrive_and_wait();
    if (rank == 0) {
      waits = host_waits();
      streams_waits = event_waits();
    }
    all.arrive_and_wait();
    const device::DeviceUsage used = taught.usage();
    static_cast<void>(logits_of(taught));
    EXPECT_EQ(taught.usage().graph_launches - used.graph_launches, 1U);
    EXPECT_EQ(taught.usage().memory_used_bytes, used.memory_used_bytes) << "a warm step allocates nothing";
    all.arrive_and_wait();
    if (rank == 0) {
      EXPECT_EQ(host_waits() - waits, std::uint64_t{kRanks});
      EXPECT_EQ(event_waits() - streams_waits, 0U);
    }
    all.arrive_and_wait();
  });
}

TEST_F(GroupStep, EachOfTheseWaitsIsNeeded) {
  constexpr int kRanks = 2;
  const auto leave_without = [this](std::uint64_t ordinal) {
    std::barrier all(kRanks);
    run_ranks(kRanks, graphs_of(21), [&](TeacherForcing& taught, int rank) {
      const Logits before = logits_of(taught);
      all.arrive_and_wait();
      if (rank == 0) {
        skip_host_wait(ordinal);
      }
      all.arrive_and_wait();
      if (!same_bits(logits_of(taught), before)) {
        leave(true);  // at once: the other rank may wait for what this one's device never gets to
      }
      all.arrive_and_wait();
    });
    leave(false);
  };
  for (std::uint64_t ordinal = 1; ordinal <= kRanks; ++ordinal) {
    SCOPED_TRACE(fmt::format("wait {}", ordinal));
    EXPECT_EXIT(leave_without(ordinal), is_failure, kNoticed);
  }
}

}  // namespace
}  // namespace lockstep::tests
