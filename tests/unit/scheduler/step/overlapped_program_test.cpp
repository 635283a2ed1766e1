// Goal    An overlapped program keeps each micro-batch's order whatever the exchanges take, has several in flight, and leaves nothing behind when one fails.
// Method  Exchanges that need a seeded number of looks; each stage checks what must have come before it. Nothing depends on time.
#include "scheduler/step/overlapped_program.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace lockstep::scheduler {
namespace {

using Layers = std::vector<std::uint8_t>;

/// Counts what each micro-batch has passed: the n-th entry of a micro-batch may run only when n came before it.
class CheckedStages final : public OverlappedStages {
 public:
  CheckedStages(std::span<const ProgramEntry> program, std::int32_t micro_batches, std::uint64_t seed)
      : program_(program), passed_(static_cast<std::size_t>(micro_batches)), random_(seed) {}

  void enqueue(const ProgramEntry& entry, device::Stream& compute) override {
    compute.enqueue([this, &entry]() -> Status {
      EXPECT_NE(std::this_thread::get_id(), caller_);
      if (entry.stage == failing_stage && entry.layer == failing_layer) {
        return Error{ErrorCode::kInternal, "the stage was made to fail"};
      }
      pass(entry);
      return {};
    });
  }
  bool needs_result(const ProgramEntry& /*entry*/) const override { return true; }
  Status wait_for(device::Event& event) override { return event.wait(Deadline::after(limit)); }
  Status wait_for(device::Stream& stream) override { return stream.synchronize(Deadline::after(limit)); }
  Status start(const ProgramEntry& entry) override {
    EXPECT_EQ(std::this_thread::get_id(), caller_) << "exchanges belong to the calling thread";
    started.push_back(&entry);
    looks_left_[&entry - program_.data()] = static_cast<int>(random_() % 4);
    in_flight_max = std::max(in_flight_max, ++in_flight_);
    if (entry.stage == failing_start) {
      return Error{ErrorCode::kPeerLost, "the exchange was made to fail"};
    }
    return {};
  }
  bool arrived(const ProgramEntry& entry) override {
    EXPECT_EQ(std::this_thread::get_id(), caller_);
    return !held(entry) && looks_left_[&entry - program_.data()]-- <= 0;
  }
  Status finish(const ProgramEntry& entry, const Deadline& deadline) override {
    EXPECT_EQ(std::this_thread::get_id(), caller_);
    --in_flight_;
    if (held(entry)) {
      return deadline.check();
    }
    pass(entry);
    return {};
  }
  Deadline deadline() const override { return Deadline::after(limit); }
  void pass(const ProgramEntry& entry) {
    const std::scoped_lock lock(mutex_);
    passed_[static_cast<std::size_t>(entry.micro_batch)].push_back(fmt::format("{} {}", stage_name(entry.stage), entry.layer));
  }
  /// The entries of each micro-batch, as the program has them.
  void expect_all_in_order() const {
    for (std::size_t micro_batch = 0; micro_batch < passed_.size(); ++micro_batch) {
      std::vector<std::string> expected;
      for (const ProgramEntry& entry : program_) {
        if (static_cast<std::size_t>(entry.micro_batch) == micro_batch) {
          expected.push_back(fmt::format("{} {}", stage_name(entry.stage), entry.layer));
        }
      }
      EXPECT_EQ(passed_[micro_batch], expected) << "micro-batch " << micro_batch;
    }
  }
  [[nodiscard]] std::size_t passed_count() const {
    std::size_t count = 0;
    for (const auto& passed : passed_) {
      count += passed.size();
    }
    return count;
  }

  Stage failing_start = Stage::kEmbed;     ///< none: it is no exchange
  Stage failing_stage = Stage::kDispatch;  ///< none: it is not computed
  std::int32_t failing_layer = 0;
  bool holds_first_dispatch = false;  ///< until the second has started, or for ever when there is none
  Duration limit = std::chrono::seconds(60);
  std::vector<const ProgramEntry*> started;
  int in_flight_max = 0;

 private:
  [[nodiscard]] bool held(const ProgramEntry& entry) const { return holds_first_dispatch && started.size() < 2 && &entry == started.front(); }

  const std::span<const ProgramEntry> program_;
  const std::thread::id caller_ = std::this_thread::get_id();
  std::mutex mutex_;
  std::vector<std::vector<std::string>> passed_;
  std::mt19937_64 random_;
  std::map<std::ptrdiff_t, int> looks_left_;
  int in_flight_ = 0;
};

class OverlappedProgramTest : public ::testing::Test {
 protected:
  void make(const Layers& layers, std::int32_t micro_batches) {
    auto device = device::make_device("cpu", {.local_rank = 0, .core_count = 1});
    ASSERT_TRUE(device) << device.error().message;
    device_ = std::move(*device);
    program_ = build_step_program(layers, micro_batches);
    auto made = OverlappedProgram::create(*device_, program_.size(), micro_batches);
    ASSERT_TRUE(made) << made.error().message;
    overlapped_ = std::move(*made);
  }
  std::unique_ptr<device::Device> device_;
  std::vector<ProgramEntry> program_;
  std::unique_ptr<OverlappedProgram> overlapped_;
};

TEST_F(OverlappedProgramTest, EachMicroBatchPassesAllStagesInOrderHoweverLateItsExchangesAre) {
  for (const Layers& layers : {Layers{1, 1, 1}, Layers{0, 1, 0, 0, 1}, Layers{0}, Layers(40, 1), Layers(300, 0)}) {
    for (const std::int32_t micro_batches : {2, 3, 4}) {
      make(layers, micro_batches);
      for (std::uint64_t seed = 0; seed < 5; ++seed) {  // one object runs step after step
        CheckedStages stages(program_, micro_batches, seed);
        const Status done = overlapped_->run(program_, stages);
        ASSERT_TRUE(done) << done.error().message;
        stages.expect_all_in_order();
        std::vector<const ProgramEntry*> exchanges;
        for (const ProgramEntry& entry : program_) {
          if (entry.stream == StreamRole::kComm) {
            exchanges.push_back(&entry);
          }
        }
        ASSERT_EQ(stages.started, exchanges) << "all ranks start the same exchanges in the program's order";
      }
    }
  }
}

TEST_F(OverlappedProgramTest, AnExchangeStartsWhileAnEarlierOneIsUnderWay) {
  make({1, 1}, 2);
  CheckedStages stages(program_, 2, 1);
  stages.holds_first_dispatch = true;  // it ends only after the second began: one at a time would never end
  const Status done = overlapped_->run(program_, stages);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(stages.in_flight_max, 2);
  stages.expect_all_in_order();
}

TEST_F(OverlappedProgramTest, AFailedExchangeEndsTheRunWithItsErrorAndTheNextRunIsWhole) {
  make(Layers(40, 1), 2);
  CheckedStages failing(program_, 2, 3);
  failing.failing_start = Stage::kCombine;
  const Status failed = overlapped_->run(program_, failing);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "the exchange was made to fail");
  EXPECT_LT(failing.passed_count(), 20U) << "what waits for an exchange must not run after a failure";
  CheckedStages stages(program_, 2, 3);
  ASSERT_TRUE(overlapped_->run(program_, stages));
  stages.expect_all_in_order();
}

TEST_F(OverlappedProgramTest, AFailedStageEndsTheRunWithItsError) {
  make(Layers(40, 1), 2);
  for (const Stage stage : {Stage::kEmbed, Stage::kExperts, Stage::kHead}) {
    CheckedStages failing(program_, 2, 3);
    failing.failing_stage = stage;
    failing.failing_layer = stage == Stage::kHead ? 40 : 0;
    const Status failed = overlapped_->run(program_, failing);
    ASSERT_FALSE(failed) << stage_name(stage);
    EXPECT_EQ(failed.error().message, "the stage was made to fail");
  }
}

TEST_F(OverlappedProgramTest, AnExchangeThatNeverComesEndsByItsDeadline) {
  make({1}, 1);
  CheckedStages stages(program_, 1, 1);
  stages.holds_first_dispatch = true;
  stages.limit = std::chrono::milliseconds(1);
  const Status failed = overlapped_->run(program_, stages);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kTimeout);
}

}  // namespace
}  // namespace lockstep::scheduler
