#include "scheduler/batch/batch_planner.hpp"

#include <algorithm>

namespace lockstep::scheduler {

namespace {

/// What is left of the prompts is spread over about so many steps, ever smaller chunks: prompts of thousands of tokens still take the whole budget at first.
constexpr std::int64_t kPromptSpread = 8;

/// Of the budget, at most so much beside streams for the sake of a long prompt: a burst that nobody's stream is beside may have all of it.
constexpr std::int64_t kBudgetPartBesideStreams = 2;

bool is_decoding(const Sequence& sequence) {
  return sequence.planned >= sequence.prefill_tokens;
}

/// Whether it may want a block beside the ones that its tokens so far fill.
bool may_grow(const Sequence& sequence) {
  return KvCache::blocks_for(std::ssize(sequence.tokens)) < KvCache::blocks_for(sequence.rows_wanted());
}

}  // namespace

BatchPlanner::BatchPlanner(const BatchLimits& limits, KvCache& cache) : limits_(limits), cache_(cache) {
  running_.reserve(static_cast<std::size_t>(limits.sequences_max));
  removed_.reserve(2 * static_cast<std::size_t>(limits.sequences_max));  // of two batches; more only when many waiting ones are cancelled at once
}

void BatchPlanner::add(std::unique_ptr<Sequence> sequence) {
  waiting_.push_back(std::move(sequence));
}

void BatchPlanner::admit(TimePoint now) {
  auto growing = static_cast<std::int32_t>(std::ranges::count_if(running_, [](const auto& sequence) { return may_grow(*sequence); }));
  while (!waiting_.empty() && running_count() < limits_.sequences_max) {
    Sequence& next = *waiting_.front();
    const std::int32_t blocks = KvCache::blocks_for(std::ssize(next.tokens));
    growing += may_grow(next) ? 1 : 0;
    // A block is left to each that may want one: else the newcomer would soon be preempted, and its prompt computed for nothing.
    const std::int32_t left_free = running_.empty() ? 0 : growing;
    // The first one that does not fit holds up those behind it: else a long request could wait for ever.
    if (!next.blocks.empty() || cache_.free_count() < blocks + left_free || !cache_.reserve(blocks, next.blocks)) {
      return;
    }
    next.admitted = next.was_preempted ? next.admitted : now;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void BatchPlanner::free_preempted() {
  for (const std::unique_ptr<Sequence>& sequence : waiting_) {
    if (!sequence->was_preempted) {
      return;
    }
    if (sequence->batches == 0 && !sequence->blocks.empty()) {
      cache_.release(sequence->blocks);
      sequence->restart();
    }
  }
}

bool BatchPlanner::expects_blocks() const {
  const auto has_blocks = [](const std::unique_ptr<Sequence>& sequence) { return !sequence->blocks.empty(); };
  const auto never_ran = std::ranges::find_if_not(waiting_, [](const auto& sequence) { return sequence->was_preempted; });
  // A running one that has had all its rows ends when the last of them is computed.
  return std::any_of(waiting_.begin(), never_ran, has_blocks) || std::ranges::any_of(removed_, has_blocks) ||
         std::ranges::any_of(running_, [](const auto& sequence) { return sequence->pending() == 0; });
}

void BatchPlanner::preempt_newest() {
  running_.back()->was_preempted = true;
  waiting_.push_front(std::move(running_.back()));
  running_.pop_back();
  ++preemptions_;
  free_preempted();
}

bool BatchPlanner::make_room(std::size_t index) {
  Sequence& sequence = *running_[index];
  const std::int32_t wanted = KvCache::blocks_for(std::int64_t{sequence.planned} + 1) - static_cast<std::int32_t>(sequence.blocks.size());
  while (wanted > 0 && !cache_.reserve(wanted, sequence.blocks)) {
    if (expects_blocks()) {
      return false;  // a step later they are free, and nothing has to be computed twice
    }
    preempt_newest();
    if (index == running_.size()) {
      return false;
    }
  }
  return true;
}

void BatchPlanner::append_rows(Sequence& sequence, std::int32_t rows, StepBatch& batch) {
  const auto entry_index = static_cast<std::int32_t>(batch.entries.size());
  const Pooling pooling = sequence.request.pooling;
  const bool is_last = rows == sequence.pending();
  const bool samples = is_last && sequence.request.max_tokens > 0;
  // Once something is generated, the whole prompt has been scored, also where it is computed again.
  const bool scores = sequence.request.scores_prompt && sequence.planned < sequence.prompt_tokens && sequence.generated() == 0;
  const bool pools = pooling == Pooling::kMean || (is_last && pooling == Pooling::kLast);
  const bool is_late = sequence.planned + rows > static_cast<std::int32_t>(sequence.tokens.size());
  batch.entries.push_back(
      {.sequence = &sequence, .first_row = batch.rows(), .rows = rows, .samples = samples, .pools = pools, .scores = scores, .is_late = is_late});
  for (std::int32_t i = 0; i < rows; ++i) {
    const std::int32_t position = sequence.planned + i;
    batch.token_ids.push_back(is_late ? 0 : sequence.tokens[static_cast<std::size_t>(position)]);
    batch.positions.push_back(position);
    batch.sequences.push_back(entry_index);
  }
  const std::size_t table = batch.block_tables.size();
  batch.block_tables.resize(table + static_cast<std::size_t>(batch.blocks_per_table), 0);
  std::ranges::copy(sequence.blocks, batch.block_tables.begin() + static_cast<std::ptrdiff_t>(table));
  if (samples && !scores) {
    batch.sample_rows.push_back(batch.rows() - 1);
  }
  if (!is_decoding(sequence)) {
    batch.prefill_tokens += rows;
    ++sequence.prefill_chunks;
  }
  sequence.planned += rows;
  ++sequence.batches;
  sequence.tokens_due += samples ? 1 : 0;
}

void BatchPlanner::fill_late_tokens(StepBatch& batch) {
  for (const StepBatch::Entry& entry : batch.entries) {
    if (entry.is_late) {
      batch.token_ids[static_cast<std::size_t>(entry.first_row)] = entry.sequence->tokens.back();
    }
  }
}

std::int32_t BatchPlanner::prompt_budget(const PromptsBesideStreams& beside, const StepBatch& batch) const {
  const std::int64_t streams = batch.rows() + beside.streams_elsewhere;
  std::int64_t prompts = beside.prompts_elsewhere;
  std::int64_t left = 0;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    prompts += is_decoding(*sequence) ? 0 : 1;
    left += is_decoding(*sequence) ? 0 : sequence->pending();
  }
  const std::int64_t free = limits_.tokens_max - batch.rows();
  if (streams < prompts) {
    return static_cast<std::int32_t>(free);  // a few streams are not worth that many prompts wait
  }
  const std::int64_t spread = std::min<std::int64_t>(left / kPromptSpread, limits_.tokens_max / kBudgetPartBesideStreams);
  return static_cast<std::int32_t>(std::min(free, std::max<std::int64_t>(spread, beside.tokens)));
}

void BatchPlanner::add_next_tokens(StepBatch& batch) {
  // By index: whoever is preempted leaves from the end.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (!is_decoding(*running_[i]) || running_[i]->pending() == 0) {
      continue;
    }
    if (batch.rows() < limits_.tokens_max && make_room(i)) {
      append_rows(*running_[i], 1, batch);
    } else if (i < running_.size()) {
      ++batch.waiting;
    }
  }
}

void BatchPlanner::add_prompt_chunks(const PromptsBesideStreams& beside, StepBatch& batch) {
  std::int32_t budget = prompt_budget(beside, batch);
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (is_decoding(*sequence)) {
      continue;
    }
    const std::int32_t rows = std::min(budget, sequence->pending());
    if (rows > 0) {
      append_rows(*sequence, rows, batch);
      budget -= rows;
    } else {
      ++batch.waiting;
    }
  }
}

void BatchPlanner::plan(TimePoint now, const PromptsBesideStreams& beside, StepBatch& batch) {
  batch.entries.clear();
  batch.token_ids.clear();
  batch.positions.clear();
  batch.sequences.clear();
  batch.block_tables.clear();
  batch.sample_rows.clear();
  batch.blocks_per_table = limits_.blocks_per_table;
  batch.prefill_tokens = 0;
  batch.waiting = 0;
  free_preempted();
  admit(now);
  // Next tokens before prompt chunks: a long prompt must not stop the running streams.
  add_next_tokens(batch);
  add_prompt_chunks(beside, batch);
  batch.waiting += waiting_count();
}

Sequence* BatchPlanner::remove(RequestId id) {
  const auto has_id = [id](const std::unique_ptr<Sequence>& sequence) { return sequence->request.id == id; };
  if (const auto running = std::ranges::find_if(running_, has_id); running != running_.end()) {
    removed_.push_back(std::move(*running));
    running_.erase(running);
  } else if (const auto waiting = std::ranges::find_if(waiting_, has_id); waiting != waiting_.end()) {
    removed_.push_back(std::move(*waiting));
    waiting_.erase(waiting);
  } else {
    return nullptr;
  }
  removed_.back()->ended = true;
  return removed_.back().get();
}

void BatchPlanner::free_removed() {
  std::erase_if(removed_, [this](const std::unique_ptr<Sequence>& sequence) {
    if (sequence->batches > 0) {
      return false;
    }
    cache_.release(sequence->blocks);
    return true;
  });
}

Sequence* BatchPlanner::remove_any() {
  if (!running_.empty()) {
    return remove(running_.front()->request.id);
  }
  return waiting_.empty() ? nullptr : remove(waiting_.front()->request.id);
}

}  // namespace lockstep::scheduler
