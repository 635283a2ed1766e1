// Goal    Whatever arrives, every token of every request is computed once and in order, or once more after a preemption, no limit is passed, no block is
//         shared, the oldest request always goes on, and all end.
// Method  Seeded random limits, caches that hold one to four of the longest requests, arrivals, cancellations and early ends against the planner; a model of
//         what was computed is kept beside it and compared at every step. Each run is made twice: each batch computed before the next is planned, and one
//         planned ahead. A failure names the seed.
#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "scheduler/batch/batch_planner.hpp"
#include "tests/unit/scheduler/scheduler_fixtures.hpp"

namespace lockstep::scheduler {
namespace {

using testing::HeapDevice;
using testing::make_cache;
using testing::make_sequence;

/// What must be true of one request.
struct Expected {
  std::int32_t prompt_tokens = 0;
  std::int32_t max_tokens = 0;
  std::int32_t prefill = 0;    ///< the first tokens, which come in chunks: the prompt's, or all that there were when it was preempted
  std::int32_t planned = 0;    ///< rows seen so far: the next one must have this position, or the first after a preemption
  std::int32_t generated = 0;  ///< tokens, those included that the batch under way will give

  [[nodiscard]] bool wants_rows() const { return planned < prompt_tokens || generated < max_tokens; }
};

class RandomRun {
 public:
  RandomRun(std::uint32_t seed, bool ahead) : ahead_(ahead), random_(seed) {
    limits_.tokens_max = pick(1, 24);
    limits_.sequences_max = pick(1, std::min(limits_.tokens_max, 8));
    limits_.blocks_per_table = pick(1, 6);
    cache_.emplace_back(make_cache(device_, pick(limits_.blocks_per_table, 4 * limits_.blocks_per_table)));
    planner_ = std::make_unique<BatchPlanner>(limits_, cache_.back());
  }

  void run() {
    const int requests = pick(1, 40);
    int to_come = requests;
    const bool cancels = pick(0, 1) == 1;
    ends_early_ = pick(0, 1) == 1;
    // The oldest has a row in every step, or ahead in every other one, so this many steps are enough for all; arrivals come in the first ones.
    const std::int64_t steps_max = 2 * 40 * (limits_.blocks_per_table * device::kKvBlockTokens) + 400;
    for (std::int64_t step = 0; step < steps_max && (to_come > 0 || !open_.empty()); ++step) {
      if (to_come > 0 && pick(0, 2) == 0) {
        arrive();
        --to_come;
      }
      if (cancels && !open_.empty() && pick(0, 9) == 0) {
        cancel();
      }
      planner_->plan(TimePoint{} + std::chrono::seconds(step + 1),
                     {.streams_elsewhere = step % 4 * 10, .prompts_elsewhere = step % 2, .tokens = step % 3 == 0 ? 1 : 7}, batch_);
      check_batch();
      check_blocks();
      if (ahead_) {
        complete(under_way_);
      }
      BatchPlanner::fill_late_tokens(batch_);
      check_tokens();
      if (!ahead_) {
        complete(batch_);
      }
      std::swap(batch_, under_way_);
      if (::testing::Test::HasFailure()) {
        return;
      }
    }
    if (ahead_) {
      complete(under_way_);  // rows of requests that ended while they were planned
    }
    EXPECT_EQ(to_come, 0);
    EXPECT_TRUE(open_.empty()) << open_.size() << " requests never ended";
    EXPECT_EQ(cache_.back().free_count(), cache_.back().block_count());
    EXPECT_EQ(planner_->running_count() + planner_->waiting_count(), 0);
  }
  std::int64_t preemptions() const { return planner_->preemptions(); }

 private:
  int pick(int least, int most) { return std::uniform_int_distribution<int>(least, most)(random_); }

  void arrive() {
    const int tokens_max = limits_.blocks_per_table * device::kKvBlockTokens;
    const int prompt = pick(1, pick(1, tokens_max - 1));  // short ones are many, so that several run
    const int answer = pick(1, tokens_max - prompt);
    open_[next_id_] = {.prompt_tokens = prompt, .max_tokens = answer, .prefill = prompt};
    planner_->add(make_sequence(next_id_, prompt, answer));
    ++next_id_;
  }

  void cancel() {
    auto victim = open_.begin();
    std::advance(victim, pick(0, static_cast<int>(open_.size()) - 1));
    EXPECT_NE(planner_->remove(victim->first), nullptr);
    planner_->free_removed();
    open_.erase(victim);
  }

  void check_batch() {
    ASSERT_LE(batch_.rows(), limits_.tokens_max);
    ASSERT_LE(planner_->running_count(), limits_.sequences_max);
    // Ahead, what is under way may hold the room that the others wait for; then the step after it must not be empty.
    const bool wanted = std::ranges::any_of(open_, [](const auto& item) { return item.second.wants_rows(); });
    ASSERT_TRUE(!wanted || batch_.rows() > 0 || (ahead_ && under_way_.rows() > 0)) << "requests are open, but the step is empty: they would wait for ever";
    ASSERT_TRUE(batch_.rows() > 0 || wanted == (batch_.waiting > 0)) << "the group would sleep over them, or agree again for nothing";
    bool prompts_began = false;
    std::int32_t prefill = 0;
    std::size_t samples = 0;
    ASSERT_NO_FATAL_FAILURE(check_oldest());
    for (std::size_t i = 0; i < batch_.entries.size(); ++i) {
      const StepBatch::Entry& entry = batch_.entries[i];
      Expected& expected = open_.at(entry.sequence->request.id);
      ASSERT_TRUE(expected.wants_rows());
      if (expected.planned > 0 && batch_.positions[static_cast<std::size_t>(entry.first_row)] == 0) {
        ASSERT_TRUE(entry.sequence->was_preempted) << "computed again for nothing";
        expected.planned = 0;
        expected.prefill = expected.prompt_tokens + expected.generated;
      }
      const bool is_prompt = expected.planned < expected.prefill;
      ASSERT_TRUE(is_prompt || !prompts_began) << "a running request behind a prompt chunk";
      prompts_began = is_prompt;
      prefill += is_prompt ? entry.rows : 0;
      ASSERT_TRUE(is_prompt || entry.rows == 1);
      for (std::int32_t r = entry.first_row; r < entry.first_row + entry.rows; ++r) {
        const auto row = static_cast<std::size_t>(r);
        ASSERT_EQ(batch_.positions[row], expected.planned) << "a position twice, or one left out";
        ASSERT_EQ(batch_.sequences[row], static_cast<std::int32_t>(i));
        ++expected.planned;
      }
      ASSERT_EQ(entry.samples, expected.planned == expected.prompt_tokens + expected.generated);
      if (entry.samples) {
        ++expected.generated;
        ASSERT_EQ(batch_.sample_rows.at(samples++), entry.first_row + entry.rows - 1);
      }
    }
    ASSERT_EQ(batch_.sample_rows.size(), samples);
    ASSERT_EQ(batch_.prefill_tokens, prefill);
  }

  /// Nothing may hold up the oldest request: then whatever is preempted ends some time.
  void check_oldest() const {
    const auto oldest = std::ranges::find_if(open_, [](const auto& item) { return item.second.wants_rows(); });
    const auto has_rows = [oldest](const StepBatch& batch) {
      return std::ranges::any_of(batch.entries, [oldest](const StepBatch::Entry& entry) { return entry.sequence->request.id == oldest->first; });
    };
    // Ahead, it may have to wait for blocks of what is under way.
    ASSERT_TRUE(oldest == open_.end() || has_rows(batch_) || (ahead_ && under_way_.rows() > 0)) << "request " << oldest->first << " does not go on";
  }

  /// Of the rows as they are computed. A request may have ended since they were planned: then they need only be of the vocabulary.
  void check_tokens() {
    for (const StepBatch::Entry& entry : batch_.entries) {
      for (std::int32_t r = entry.first_row; r < entry.first_row + entry.rows; ++r) {
        const auto position = static_cast<std::size_t>(batch_.positions[static_cast<std::size_t>(r)]);
        const std::vector<std::int32_t>& tokens = entry.sequence->tokens;
        ASSERT_TRUE(position < tokens.size() || entry.sequence->ended);
        ASSERT_EQ(batch_.token_ids[static_cast<std::size_t>(r)], position < tokens.size() ? tokens[position] : tokens.back());
      }
    }
  }

  /// Blocks of the admitted are disjoint and enough for the rows planned; admission is in order of arrival.
  void check_blocks() {
    std::set<std::int32_t> used;
    std::size_t count = 0;
    for (std::size_t i = 0; i < batch_.entries.size(); ++i) {
      const Sequence& sequence = *batch_.entries[i].sequence;
      ASSERT_GE(std::ssize(sequence.blocks) * device::kKvBlockTokens, sequence.planned);
      ASSERT_LE(std::ssize(sequence.blocks), limits_.blocks_per_table);
      const auto table = batch_.block_tables.begin() + static_cast<std::ptrdiff_t>(i) * batch_.blocks_per_table;
      ASSERT_TRUE(std::equal(sequence.blocks.begin(), sequence.blocks.end(), table));
      used.insert(sequence.blocks.begin(), sequence.blocks.end());
      count += sequence.blocks.size();
    }
    ASSERT_EQ(used.size(), count) << "two sequences share a block";
    for (const StepBatch::Entry& entry : under_way_.entries) {
      const bool goes_on = std::ranges::any_of(batch_.entries, [&entry](const StepBatch::Entry& other) { return other.sequence == entry.sequence; });
      ASSERT_TRUE(!ahead_ || goes_on || std::ranges::none_of(entry.sequence->blocks, [&used](std::int32_t block) { return used.contains(block); }))
          << "a block of a batch that is not computed yet was given away";
    }
    ASSERT_LE(std::ssize(used), cache_.back().block_count() - cache_.back().free_count());
    RequestId youngest_in_batch = 0;
    for (const StepBatch::Entry& entry : batch_.entries) {
      youngest_in_batch = std::max(youngest_in_batch, entry.sequence->request.id);
    }
    // Ids grow with arrival: whoever waits is younger than everyone who was admitted.
    ASSERT_LE(std::ranges::count_if(open_, [&](const auto& item) { return item.first <= youngest_in_batch; }), planner_->running_count());
  }

  void complete(const StepBatch& batch) {
    for (const StepBatch::Entry& entry : batch.entries) {
      Sequence& sequence = *entry.sequence;
      sequence.complete(entry.rows, entry.samples);
      if (!entry.samples || sequence.ended) {
        continue;
      }
      const bool is_end_token = ends_early_ && pick(0, 9) == 0;
      sequence.tokens.push_back(pick(0, 50));
      const RequestId id = sequence.request.id;
      if (is_end_token || sequence.generated() == sequence.request.max_tokens) {
        EXPECT_NE(planner_->remove(id), nullptr);
        open_.erase(id);
      }
    }
    planner_->free_removed();
  }

  bool ahead_;
  bool ends_early_ = false;
  std::mt19937 random_;
  BatchLimits limits_;
  HeapDevice device_;
  std::vector<KvCache> cache_;
  std::unique_ptr<BatchPlanner> planner_;
  StepBatch batch_;
  StepBatch under_way_;
  std::map<RequestId, Expected> open_;
  RequestId next_id_ = 1;
};

TEST(BatchPlannerProperty, EveryTokenIsComputedOnceAndAllRequestsEndWhateverArrives) {
  std::int64_t preemptions = 0;
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    for (const bool ahead : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "seed " << seed << (ahead ? ", ahead" : ""));
      RandomRun random_run(seed, ahead);
      random_run.run();
      if (HasFailure()) {
        return;
      }
      preemptions += random_run.preemptions();
    }
  }
  EXPECT_GT(preemptions, 100) << "the caches were to be too small";
}

}  // namespace
}  // namespace lockstep::scheduler
