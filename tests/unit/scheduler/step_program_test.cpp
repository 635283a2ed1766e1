// Goal    The step program is right whatever the streams' timing: stages of a micro-batch in order, collectives in one order on all ranks, no deadlock.
// Method  The sequence of collectives is written down. Then the program runs on two simulated in-order queues, with events as device::Stream defines them, in
//         seeded random interleavings; and several ranks run it at once, where a collective starts only when all ranks have come to it.
#include "scheduler/step/step_program.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::scheduler {
namespace {

using ::testing::ElementsAre;
using Layers = std::vector<std::uint8_t>;

const std::vector<Layers> kModels{{1}, {0}, {}, {1, 1, 1}, {0, 0}, {0, 1, 0, 1}, {1, 0, 0, 1}, {0, 1, 1, 0}, {1, 1, 1, 1, 1, 1, 1, 1}};

bool is_collective(const ProgramEntry& entry) {
  return entry.stage == Stage::kDispatch || entry.stage == Stage::kCombine;
}

std::string describe(const ProgramEntry& entry) {
  return fmt::format("{} {} {}", stage_name(entry.stage), entry.layer, entry.micro_batch);
}

std::vector<std::string> stages_on(const std::vector<ProgramEntry>& program, StreamRole stream) {
  std::vector<std::string> result;
  for (const ProgramEntry& entry : program) {
    if (entry.stream == stream) {
      result.push_back(describe(entry));
    }
  }
  return result;
}

/// The stages that one micro-batch must pass, in order: written from the model's definition.
std::vector<std::pair<Stage, std::int32_t>> stages_of_one_micro_batch(const Layers& layers) {
  std::vector<std::pair<Stage, std::int32_t>> result{{Stage::kEmbed, 0}};
  std::int32_t index = 0;
  for (const std::uint8_t sparse : layers) {
    result.emplace_back(Stage::kAttention, index);
    if (sparse != 0) {
      for (const Stage stage : {Stage::kDispatch, Stage::kExperts, Stage::kCombine, Stage::kWeigh}) {
        result.emplace_back(stage, index);
      }
    } else {
      result.emplace_back(Stage::kDense, index);
    }
    ++index;
  }
  result.emplace_back(Stage::kHead, index);
  return result;
}

/// One rank's two queues, as the executor fills them.
class SimulatedRank {
 public:
  explicit SimulatedRank(const std::vector<ProgramEntry>& program, std::int32_t micro_batches) : passed_(static_cast<std::size_t>(micro_batches)) {
    std::map<EventKey, int> recorded;
    for (const ProgramEntry& entry : program) {
      auto& queue = queues_[static_cast<std::size_t>(entry.stream)];
      if (entry.wait != StepEvent::kNone) {
        // Stream::wait_for means the last record enqueued before it; one for an event never recorded would not wait at all.
        const int generation = recorded[{entry.micro_batch, entry.wait}];
        EXPECT_GT(generation, 0) << describe(entry) << " waits for an event that nothing before it records";
        queue.push_back({.kind = Kind::kWait, .entry = entry, .generation = generation});
      }
      queue.push_back({.kind = Kind::kRun, .entry = entry});
      if (entry.record != StepEvent::kNone) {
        queue.push_back({.kind = Kind::kRecord, .entry = entry, .generation = ++recorded[{entry.micro_batch, entry.record}]});
      }
    }
  }

  bool done() const { return next_[0] == queues_[0].size() && next_[1] == queues_[1].size(); }
  bool done(std::size_t queue) const { return next_[queue] == queues_[queue].size(); }
  /// True when the head of `queue` may run now. A collective is asked about by `collective`.
  bool runnable(std::size_t queue) const {
    if (done(queue)) {
      return false;
    }
    const Item& item = queues_[queue][next_[queue]];
    if (item.kind != Kind::kWait) {
      return true;
    }
    const auto found = fired_.find({item.entry.micro_batch, item.entry.wait});
    return found != fired_.end() && found->second >= item.generation;
  }
  /// The collective at the head of `queue`, or null.
  const ProgramEntry* collective(std::size_t queue) const {
    if (done(queue)) {
      return nullptr;
    }
    const Item& item = queues_[queue][next_[queue]];
    return item.kind == Kind::kRun && is_collective(item.entry) ? &item.entry : nullptr;
  }
  void advance(std::size_t queue) {
    const Item& item = queues_[queue][next_[queue]++];
    if (item.kind == Kind::kRecord) {
      fired_[{item.entry.micro_batch, item.entry.record}] = item.generation;
    } else if (item.kind == Kind::kRun) {
      passed_[static_cast<std::size_t>(item.entry.micro_batch)].emplace_back(item.entry.stage, item.entry.layer);
      ran_.push_back(item.entry);
    }
  }
  const std::vector<std::pair<Stage, std::int32_t>>& passed(std::size_t micro_batch) const { return passed_[micro_batch]; }
  const std::vector<ProgramEntry>& ran() const { return ran_; }

 private:
  enum class Kind { kWait, kRun, kRecord };
  using EventKey = std::pair<std::int32_t, StepEvent>;
  struct Item {
    Kind kind;
    ProgramEntry entry;
    int generation = 0;
  };
  std::array<std::vector<Item>, 2> queues_;
  std::array<std::size_t, 2> next_{};
  std::map<EventKey, int> fired_;
  std::vector<std::vector<std::pair<Stage, std::int32_t>>> passed_;
  std::vector<ProgramEntry> ran_;
};

TEST(StepProgram, WithinADeviceExpertsFollowAttentionWithoutCollectives) {
  EXPECT_THAT(stages_on(build_step_program(Layers{1, 0}, 2, RowTravel::kWithinDevice), StreamRole::kCompute),
              ElementsAre("embed 0 0", "embed 0 1", "attention 0 0", "experts 0 0", "attention 0 1", "experts 0 1", "attention 1 0", "dense 1 0",
                          "attention 1 1", "dense 1 1", "head 2 0", "head 2 1"));
  for (const Layers& layers : kModels) {
    for (const ProgramEntry& entry : build_step_program(layers, 4, RowTravel::kWithinDevice)) {
      EXPECT_FALSE(is_collective(entry)) << describe(entry);
      EXPECT_EQ(entry.wait, StepEvent::kNone) << describe(entry);
      EXPECT_EQ(entry.record, StepEvent::kNone) << describe(entry);
    }
  }
}

TEST(StepProgram, WithOneMicroBatchEveryStageComesInTheModelsOrder) {
  for (const Layers& layers : kModels) {
    const std::vector<ProgramEntry> program = build_step_program(layers, 1);
    std::vector<std::pair<Stage, std::int32_t>> stages;
    for (const ProgramEntry& entry : program) {  // inline: the order of the entries is the order of execution
      stages.emplace_back(entry.stage, entry.layer);
    }
    EXPECT_EQ(stages, stages_of_one_micro_batch(layers));
  }
}

TEST(StepProgram, WithTwoMicroBatchesOneComputesWhileTheOthersTokensTravel) {
  const std::vector<ProgramEntry> program = build_step_program(Layers{1, 1}, 2);
  EXPECT_THAT(stages_on(program, StreamRole::kCompute),
              ElementsAre("embed 0 0", "embed 0 1", "attention 0 0", "attention 0 1", "experts 0 0", "experts 0 1", "weigh 0 0", "attention 1 0", "weigh 0 1",
                          "attention 1 1", "experts 1 0", "experts 1 1", "weigh 1 0", "head 2 0", "weigh 1 1", "head 2 1"));
  EXPECT_THAT(stages_on(program, StreamRole::kComm),
              ElementsAre("dispatch 0 0", "dispatch 0 1", "combine 0 0", "combine 0 1", "dispatch 1 0", "dispatch 1 1", "combine 1 0", "combine 1 1"));
}

TEST(StepProgram, CollectivesAreOnTheCommStreamAndEverythingElseIsNot) {
  for (const Layers& layers : kModels) {
    for (const std::int32_t micro_batches : {1, 2, 3}) {
      std::vector<std::tuple<Stage, std::int32_t, std::int32_t>> collectives;
      for (const ProgramEntry& entry : build_step_program(layers, micro_batches)) {
        EXPECT_EQ(is_collective(entry), entry.stream == StreamRole::kComm) << describe(entry);
        if (is_collective(entry)) {
          collectives.emplace_back(entry.stage, entry.layer, entry.micro_batch);
        }
      }
      std::vector<std::tuple<Stage, std::int32_t, std::int32_t>> expected;
      for (std::int32_t layer = 0; layer < std::ssize(layers); ++layer) {
        for (const Stage stage : {Stage::kDispatch, Stage::kCombine}) {
          for (std::int32_t i = 0; i < micro_batches && layers[static_cast<std::size_t>(layer)] != 0; ++i) {
            expected.emplace_back(stage, layer, i);
          }
        }
      }
      EXPECT_EQ(collectives, expected);
    }
  }
}

TEST(StepProgram, EveryWaitHasAnEarlierRecordOfItsOwnMicroBatchInTheSameLayer) {
  for (const Layers& layers : kModels) {
    for (const std::int32_t micro_batches : {1, 2, 3}) {
      std::map<std::pair<std::int32_t, StepEvent>, std::int32_t> recorded_by_layer;
      for (const ProgramEntry& entry : build_step_program(layers, micro_batches)) {
        if (entry.wait != StepEvent::kNone) {
          const auto found = recorded_by_layer.find({entry.micro_batch, entry.wait});
          ASSERT_NE(found, recorded_by_layer.end()) << describe(entry);
          EXPECT_EQ(found->second, entry.layer) << describe(entry) << " would wait for another layer's event";
        }
        if (entry.record != StepEvent::kNone) {
          recorded_by_layer[{entry.micro_batch, entry.record}] = entry.layer;
        }
      }
    }
  }
}

TEST(StepProgram, EveryMicroBatchPassesAllStagesInOrderHoweverTheStreamsInterleave) {
  std::mt19937 random(20251122);
  for (const Layers& layers : kModels) {
    for (const std::int32_t micro_batches : {1, 2, 3}) {
      const std::vector<ProgramEntry> program = build_step_program(layers, micro_batches);
      for (int run = 0; run < 200; ++run) {
        SimulatedRank rank(program, micro_batches);
        while (!rank.done()) {
          const std::array can{rank.runnable(0), rank.runnable(1)};
          ASSERT_TRUE(can[0] || can[1]) << "deadlock: both streams wait for events that nobody will record";
          const std::size_t queue = can[0] && can[1] ? random() % 2 : (can[0] ? 0 : 1);
          rank.advance(queue);
        }
        for (std::int32_t i = 0; i < micro_batches; ++i) {
          ASSERT_EQ(rank.passed(static_cast<std::size_t>(i)), stages_of_one_micro_batch(layers)) << "micro-batch " << i << ", run " << run;
        }
      }
    }
  }
}

TEST(StepProgram, AttentionOfALaterMicroBatchComesAfterTheEarlierOnesOfTheSameLayer) {
  // A prompt chunk that spans both needs the earlier rows' keys in the cache.
  for (const Layers& layers : kModels) {
    std::vector<std::int32_t> seen(layers.size(), 0);
    for (const ProgramEntry& entry : build_step_program(layers, 2)) {
      if (entry.stage == Stage::kAttention) {
        EXPECT_EQ(entry.stream, StreamRole::kCompute);
        EXPECT_EQ(entry.micro_batch, seen[static_cast<std::size_t>(entry.layer)]++);
      }
    }
  }
}

TEST(StepProgram, ManyRanksRunItTogetherWithoutADeadlockHoweverLateEachIs) {
  std::mt19937 random(77);
  for (const int rank_count : {1, 2, 4, 7}) {
    for (const std::int32_t micro_batches : {1, 2}) {
      const std::vector<ProgramEntry> program = build_step_program(Layers{1, 0, 1, 1}, micro_batches);
      for (int run = 0; run < 50; ++run) {
        std::vector<SimulatedRank> ranks(static_cast<std::size_t>(rank_count), SimulatedRank(program, micro_batches));
        const auto all_done = [&] { return std::ranges::all_of(ranks, [](const SimulatedRank& rank) { return rank.done(); }); };
        while (!all_done()) {
          // A collective runs when it is at the head of every rank's comm stream; anything else as soon as its own rank allows.
          std::vector<std::pair<std::size_t, std::size_t>> choices;
          std::size_t arrived = 0;
          for (std::size_t r = 0; r < ranks.size(); ++r) {
            for (const std::size_t queue : {std::size_t{0}, std::size_t{1}}) {
              if (ranks[r].collective(queue) != nullptr) {
                ASSERT_EQ(queue, static_cast<std::size_t>(StreamRole::kComm));
                ++arrived;
              } else if (ranks[r].runnable(queue)) {
                choices.emplace_back(r, queue);
              }
            }
          }
          const bool together = arrived == ranks.size();
          ASSERT_TRUE(together || !choices.empty()) << "deadlock with " << rank_count << " ranks";
          if (together && (choices.empty() || random() % 4 == 0)) {
            const std::string first = describe(*ranks[0].collective(1));
            for (SimulatedRank& rank : ranks) {
              ASSERT_EQ(describe(*rank.collective(1)), first) << "ranks meet in different collectives";
              rank.advance(1);
            }
          } else if (!choices.empty()) {
            const auto [r, queue] = choices[random() % choices.size()];
            ranks[r].advance(queue);
          }
        }
      }
    }
  }
}

TEST(StepProgram, EveryStageHasAName) {
  for (const Stage stage : {Stage::kEmbed, Stage::kAttention, Stage::kDense, Stage::kDispatch, Stage::kExperts, Stage::kCombine, Stage::kWeigh, Stage::kHead}) {
    EXPECT_NE(stage_name(stage), "unknown");
  }
}

}  // namespace
}  // namespace lockstep::scheduler
